"""The pocket backbone: an AudioLDM2 of a few million parameters that this project trains itself.

Same diffusers, transformers and timm classes as ``cvssp/audioldm2-large``, same folder layout, sizes of
:data:`apa_lightning.random_backbone.POCKET`. One module trains each part (``python -m apa_lightning fit --config
configs/pocket/<part>.yaml``) and writes it into one folder; :mod:`apa_lightning.pocket.report` measures that folder.
``weights/`` is such a folder, with an adapter: what ``embedded`` means everywhere.
"""
