"""Style and script of ``report.html``: no frameworks, nothing from the network, light and dark.

The script builds the players of the listening part in steps, from the JSON in the page, and stops all players but the one
that was started last.
"""

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --tint: #f6f8fa; --ground: #fff;
  --mark: #0969da; --good: #1a7f37; --bad: #cf222e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --line: #3d444d; --tint: #151b23;
  --ground: #0d1117; --mark: #4493f8; --good: #3fb950; --bad: #f85149; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem 1.25rem 4rem; max-width: 92rem; color: var(--ink); background: var(--ground);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: .5rem 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1rem; padding: .4rem 0; border-bottom: 1px solid var(--line); }
a { color: var(--mark); } summary { cursor: pointer; margin: .6rem 0; }
dl.about { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .6rem 0; }
dl.about dt { color: var(--soft); } dl.about dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  white-space: nowrap; }
thead th { background: var(--tint); font-weight: 600; } tbody th { font-weight: 500; }
tbody tr:hover { background: var(--tint); }
thead th:first-child, tbody th:first-child { position: sticky; left: 0; background: var(--ground); }
thead th:first-child { background: var(--tint); }
th.group { border-left: 1px solid var(--line); }
td small { display: block; color: var(--soft); font-size: .75rem; line-height: 1.3; }
.note, .soft { color: var(--soft); font-size: .875rem; margin: .4rem 0; }
.plot { overflow-x: auto; margin: .4rem 0; } .plot svg { max-width: 100%; min-width: 34rem; height: auto; }
.plot.single svg { max-width: min(100%, 44rem); min-width: 0; }
.verdict { font-weight: 600; } .verdict.shown { color: var(--good); } .verdict.opposite { color: var(--bad); }
.filters { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: end; padding: .6rem 0; position: sticky; top: 0;
  background: var(--ground); z-index: 1; }
.filters label { font-size: .8rem; color: var(--soft); display: grid; }
.filters label.tick { display: flex; gap: .35rem; align-items: center; padding-bottom: .3rem; }
select, button { font: inherit; color: inherit; background: var(--tint); border: 1px solid var(--line);
  border-radius: 6px; padding: .25rem .5rem; max-width: 14rem; }
.edit { border: 1px solid var(--line); border-radius: 8px; padding: .7rem .9rem; margin: .7rem 0; }
.edit h4 { margin: 0; font-size: .95rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(15.5rem, 1fr)); gap: .6rem; margin-top: .5rem;
  align-items: start; }
.tile { background: var(--tint); border-radius: 6px; padding: .5rem .6rem; min-width: 0; }
.tile b { font-weight: 600; overflow-wrap: anywhere; } .tile audio { width: 100%; height: 34px; margin: .3rem 0; display: block; }
.tile.source { outline: 1px solid var(--mark); }
.tile dl { display: flex; flex-wrap: wrap; gap: 0 .8rem; margin: 0; font-size: .8rem; }
.tile dl div { display: flex; gap: .3rem; } .tile dt { color: var(--soft); } .tile dd { margin: 0; }
.tile dl .more { display: none; } .all .tile dl .more { display: flex; }
@media (max-width: 40rem) { body { padding: .6rem .7rem 3rem; } .filters { position: static; }
  .evidence th, .evidence td { white-space: normal; } tbody th:first-child { position: static; }
  .tiles { grid-template-columns: 1fr; } dl.about { grid-template-columns: 1fr; } dl.about dd { margin-bottom: .3rem; } }
"""

SCRIPT = """
'use strict';
const data = JSON.parse(document.getElementById('edits').textContent);
const list = document.getElementById('list'), count = document.getElementById('count'), more = document.getElementById('more');
const filters = ['task', 'instrument', 'target', 'system'].map(name => [name, document.getElementById('by-' + name)]);
let wanted = [], shown = 0;

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}
function tile(name, path, figures, className) {
  const made = element('div', '', 'tile ' + (className || ''));
  made.append(element('b', name));
  if (path) {
    const audio = element('audio');
    audio.controls = true; audio.preload = 'none'; audio.src = path; audio.title = name;
    made.append(audio);
  } else made.append(element('p', 'The audio file is missing.', 'soft'));
  const described = element('dl');
  figures.forEach(([title, value, main]) => {
    const pair = element('div', '', main ? '' : 'more');
    pair.append(element('dt', title), element('dd', value));
    described.append(pair);
  });
  made.append(described);
  return made;
}
function card(edit, system) {
  const made = element('div', '', 'edit');
  made.append(element('h4', edit.title), element('div', edit.prompt, 'soft'));
  const tiles = element('div', '', 'tiles');
  tiles.append(tile('source: ' + edit.source, edit.audio, [], 'source'));
  edit.systems.filter(one => system === '' ? !one.swept : system === '*' || one.name === system)
    .forEach(one => tiles.append(tile(one.name, one.audio, one.figures)));
  made.append(tiles);
  return made;
}
function next() {
  const system = filters[3][1].value;
  wanted.slice(shown, shown + data.page).forEach(edit => list.append(card(edit, system)));
  shown = Math.min(shown + data.page, wanted.length);
  count.textContent = wanted.length ? shown + ' of ' + wanted.length + ' edits' : 'No edit fits this choice.';
  more.hidden = shown >= wanted.length;
}
function begin() {
  const [task, instrument, target, system] = filters.map(([, select]) => select.value);
  wanted = data.edits.filter(edit => (!task || edit.task === task) && (!instrument || edit.instrument === instrument) &&
    (!target || edit.target === target) &&
    (!system || system === '*' || edit.systems.some(one => one.name === system)));
  list.replaceChildren(); shown = 0;
  next();
}
filters.forEach(([, select]) => select.addEventListener('change', begin));
more.addEventListener('click', next);
document.getElementById('all').addEventListener('change', event => list.classList.toggle('all', event.target.checked));
document.addEventListener('play', event => {
  document.querySelectorAll('audio').forEach(audio => { if (audio !== event.target) audio.pause(); });
}, true);
begin();
"""
