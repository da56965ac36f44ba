"""Text and HTML from the jinja2 templates of a package."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def render(package: str, template: str, **values: Any) -> str:
    """Fill a template of the folder ``templates`` of a package.

    HTML templates escape every value that is not ``markupsafe.Markup``; ``tojson`` writes JSON that cannot end a ``<script>``.

    Args:
        package: Import path of the package.
        template: File name of the template; ``.html.j2`` for HTML.
        **values: Variables of the template.

    Raises:
        jinja2.UndefinedError: If the template uses a variable that is not given.
    """
    environment = Environment(
        loader=PackageLoader(package),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "allow_nan": False}
    return environment.get_template(template).render(values)
