'use strict';
const PAGE = 10; // edits shown at a time
const edits = JSON.parse(document.getElementById('edits').textContent).edits;
const list = document.getElementById('list'), count = document.getElementById('count'), more = document.getElementById('more');
const filters = ['task', 'instrument', 'target', 'system'].map(name => [name, document.getElementById('by-' + name)]);
let wanted = [], shown = 0;

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}
function tile(name, path, scores, className) {
  const made = element('div', '', 'tile ' + (className || ''));
  made.append(element('b', name));
  if (path) {
    const audio = element('audio');
    audio.controls = true; audio.preload = 'none'; audio.src = path; audio.title = name;
    made.append(audio);
  } else made.append(element('p', 'The audio file is missing.', 'soft'));
  const described = element('dl');
  scores.forEach(([title, value, main]) => {
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
    .forEach(one => tiles.append(tile(one.name, one.audio, one.scores)));
  made.append(tiles);
  return made;
}
function next() {
  const system = filters[3][1].value;
  wanted.slice(shown, shown + PAGE).forEach(edit => list.append(card(edit, system)));
  shown = Math.min(shown + PAGE, wanted.length);
  count.textContent = wanted.length ? shown + ' of ' + wanted.length + ' edits' : 'No edit fits this choice.';
  more.hidden = shown >= wanted.length;
}
function restart() {
  const [task, instrument, target, system] = filters.map(([, select]) => select.value);
  wanted = edits.filter(edit => (!task || edit.task === task) && (!instrument || edit.instrument === instrument) &&
    (!target || edit.target === target) &&
    (!system || system === '*' || edit.systems.some(one => one.name === system)));
  list.replaceChildren(); shown = 0;
  next();
}
filters.forEach(([, select]) => select.addEventListener('change', restart));
more.addEventListener('click', next);
document.getElementById('all').addEventListener('change', event => list.classList.toggle('all', event.target.checked));
document.addEventListener('play', event => {
  document.querySelectorAll('audio').forEach(audio => { if (audio !== event.target) audio.pause(); });
}, true);
restart();
