"use strict";

const TEST = JSON.parse(document.getElementById("test").textContent);
const SETS = new Map(TEST.sets.map((set) => [set.token, set]));
const STORE = `listening-test-${TEST.build}`;
const TOTAL = TEST.questions.length * TEST.sets.reduce((sum, set) => sum + set.items.length, 0);
const main = document.getElementById("main");
let hintTimer = 0;
let state = stored() || fresh();

/* A random generator (mulberry32) seeded by the listener's token, so that the order can be reproduced from the token. */
function generator(token) {
  let seed = 0;
  for (const letter of token) seed = (Math.imul(seed, 31) + letter.charCodeAt(0)) | 0;
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

function shuffled(list, random) {
  const mixed = [...list];
  for (let i = mixed.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [mixed[i], mixed[j]] = [mixed[j], mixed[i]];
  }
  return mixed;
}

function fresh() {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  const listener = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const random = generator(listener);
  const order = shuffled(TEST.sets, random).map((set) => ({ set: set.token, items: shuffled(set.items, random) }));
  return { build: TEST.build, listener, started: new Date().toISOString(), saved: "", order, played: [], ratings: {}, position: -1 };
}

/* Positions: -1 is the introduction, 0 the first set, the number of sets the end. */
function stored() {
  try {
    const kept = JSON.parse(localStorage.getItem(STORE));
    return kept && kept.build === TEST.build ? kept : null;
  } catch {
    return null;
  }
}

function save() {
  state.saved = new Date().toISOString();
  hint("");
  try {
    localStorage.setItem(STORE, JSON.stringify(state));
  } catch {
    document.getElementById("warning").hidden = false;
  }
  showProgress();
}

function given(items) {
  return items.reduce((sum, item) => sum + Object.keys(state.ratings[item] || {}).length, 0);
}

function missing(entry) {
  return entry.items.length * TEST.questions.length - given(entry.items);
}

function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

function showProgress() {
  const done = given(state.order.flatMap((entry) => entry.items));
  const bar = document.getElementById("progress");
  bar.max = TOTAL;
  bar.value = done;
  const sets = state.order.length;
  const place = state.position < 0 ? count(sets, "set") : state.position < sets ? `Set ${state.position + 1} of ${sets}` : "End";
  document.getElementById("progress-text").textContent = `${place} · ${done} of ${TOTAL} ratings`;
  document.getElementById("download").hidden = state.position < 0 || state.position >= sets;
  const note = main.querySelector(".missing");
  const left = note ? missing(state.order[state.position]) : 0;
  if (note) note.textContent = left ? `${count(left, "rating")} missing in this set` : "This set is complete";
}

function hint(text) {
  const place = document.getElementById("hint");
  place.textContent = text;
  clearTimeout(hintTimer);
  hintTimer = setTimeout(() => (place.textContent = ""), 3000);
}

function template(name) {
  return document.getElementById(name).content.cloneNode(true);
}

function go(position) {
  state.position = position;
  show();
  save();
}

function show() {
  const { position, order } = state;
  const name = position < 0 ? "intro" : position < order.length ? "set" : "end";
  main.replaceChildren(template(name));
  if (name === "intro") main.querySelector(".start").onclick = () => go(0);
  if (name === "set") showSet(order[position]);
  if (name === "end") showEnd();
  const back = main.querySelector(".back");
  if (back) back.onclick = () => go(position - 1);
  showProgress();
  window.scrollTo(0, 0);
  const rows = [...main.querySelectorAll(".row")];
  const open = rows.findIndex((row) => row.matches("fieldset") && !row.querySelector(":checked"));
  const entered = name === "set" && given(order[position].items) > 0 && open > 0;
  focusRow(entered ? target(rows, open) : rows[0]) || (main.querySelector(".start") || main.querySelector("h1")).focus();
}

function showSet(entry) {
  const set = SETS.get(entry.set);
  const original = main.querySelector(".original");
  main.querySelector("h1").textContent = `Set ${state.position + 1} of ${state.order.length}`;
  main.querySelector(".task").textContent = `Text (${set.task})`;
  main.querySelector("blockquote").textContent = set.text;
  original.append(player("Original", set.source));
  entry.items.forEach((item, i) => main.querySelector(".items").append(card(`Edit ${String.fromCharCode(65 + i)}`, item)));
  main.querySelector(".next").onclick = () => go(state.position + 1);
}

function card(title, item) {
  const section = document.createElement("section");
  section.className = "card item";
  section.dataset.item = item;
  section.setAttribute("aria-label", title);
  section.append(player(title, item), ...TEST.questions.map((question) => scale(title, item, question)));
  lock(section, !state.played.includes(item));
  return section;
}

function player(title, token) {
  const row = template("player").firstElementChild;
  const [audio, button, seek, time] = ["audio", "button", ".seek", ".time"].map((name) => row.querySelector(name));
  const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
  const refresh = () => {
    seek.value = audio.duration ? audio.currentTime / audio.duration : 0;
    time.textContent = audio.duration ? `${clock(audio.currentTime)} / ${clock(audio.duration)}` : "";
    button.textContent = audio.paused ? "Play" : "Pause";
    button.setAttribute("aria-label", `${button.textContent} ${title}`);
  };
  row.querySelector("h2").textContent = title;
  seek.setAttribute("aria-label", `Position in ${title}`);
  audio.src = `audio/${token}.wav`;
  button.onclick = () => (audio.paused ? audio.play().catch(() => {}) : audio.pause());
  seek.oninput = () => audio.duration && (audio.currentTime = seek.value * audio.duration);
  for (const event of ["timeupdate", "pause", "play", "ended", "loadedmetadata"]) audio.addEventListener(event, refresh);
  audio.addEventListener("play", () => main.querySelectorAll("audio").forEach((other) => other !== audio && other.pause()));
  audio.addEventListener("playing", () => started(row.closest(".item")));
  audio.addEventListener("error", () => (time.textContent = "This audio cannot be played."));
  refresh();
  return row;
}

function started(section) {
  if (!section || state.played.includes(section.dataset.item)) return;
  state.played.push(section.dataset.item);
  lock(section, false);
  save();
}

function lock(section, locked) {
  for (const fieldset of section.querySelectorAll("fieldset")) {
    fieldset.disabled = locked;
    fieldset.classList.toggle("locked", locked);
    fieldset.title = locked ? "Play the edit before you rate it" : "";
  }
}

function scale(title, item, question) {
  const fieldset = document.createElement("fieldset");
  fieldset.className = "row";
  fieldset.dataset.question = question.name;
  const legend = document.createElement("legend");
  const strong = document.createElement("strong");
  strong.textContent = question.title;
  legend.append(strong, question.wording);
  const line = document.createElement("div");
  line.className = "scale";
  const end = (text) => Object.assign(document.createElement("span"), { textContent: text, ariaHidden: "true" });
  const choices = Array.from({ length: TEST.points }, (_, i) => {
    const value = i + 1;
    const meaning = value === 1 ? `, ${question.lowest}` : value === TEST.points ? `, ${question.highest}` : "";
    const input = Object.assign(document.createElement("input"), { type: "radio", name: `${item}-${question.name}`, value });
    input.setAttribute("aria-label", `${title}, ${question.title}: ${value}${meaning}`);
    input.checked = (state.ratings[item] || {})[question.name] === value;
    input.onchange = () => rate(item, question.name, value);
    const label = document.createElement("label");
    label.append(input, String(value));
    return label;
  });
  line.append(end(question.lowest), ...choices, end(question.highest));
  fieldset.append(legend, line);
  return fieldset;
}

function rate(item, question, value) {
  state.ratings[item] = { ...state.ratings[item], [question]: value };
  save();
}

function showEnd() {
  const open = state.order.map((entry, i) => [i, missing(entry)]).filter(([, left]) => left);
  main.querySelector("h1").textContent = open.length ? "Not quite done" : "Thank you!";
  main.querySelector(".summary").textContent = open.length
    ? "Some ratings are missing. Please add them, or download the answers given so far."
    : "You have rated everything.";
  for (const [i, left] of open) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "quiet" });
    button.textContent = `Set ${i + 1}: ${count(left, "rating")} missing`;
    button.onclick = () => go(i);
    const line = document.createElement("li");
    line.append(button);
    main.querySelector(".unfinished").append(line);
  }
  main.querySelector(".download").onclick = download;
  main.querySelector(".again").onclick = () => {
    if (!confirm("Start again? The answers given so far will be removed from this browser: download them first.")) return;
    state = fresh();
    go(-1);
  };
}

function download() {
  const { position, ...answers } = state;
  const complete = given(state.order.flatMap((entry) => entry.items)) === TOTAL;
  const text = JSON.stringify({ ...answers, complete, downloaded: new Date().toISOString() }, null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = `answers-${TEST.build}-${state.listener}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  hint(`Downloaded ${link.download}`);
}

/* Rows are the players and the questions, in the order of the page; the marked row has the keyboard focus. */
function currentRow() {
  const active = document.activeElement;
  return active === document.body ? main.querySelector(".row.current") : active.closest(".row");
}

function mark(row) {
  main.querySelectorAll(".current").forEach((other) => other.classList.remove("current"));
  main.querySelectorAll(".here").forEach((other) => other.classList.remove("here"));
  row.classList.add("current");
  row.closest(".card").classList.add("here");
}

function focusRow(row) {
  if (!row) return false;
  const place = row.querySelector("input:checked:enabled") || row.querySelector("button, input[type=radio]:enabled");
  mark(row);
  place.focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
  return true;
}

/* The row at an index, or the player above it while its questions are locked. */
function target(rows, index) {
  const row = rows[index];
  return row && row.disabled ? row.closest(".card").querySelector(".player") : row;
}

function move(step) {
  const rows = [...main.querySelectorAll(".row")].filter((row) => !row.disabled);
  const here = rows.indexOf(currentRow());
  const row = rows[here < 0 && step < 0 ? rows.length - 1 : here + step];
  if (!focusRow(row) && step > 0) main.querySelector(".next").focus();
}

function press(value) {
  const row = currentRow();
  const section = row && row.closest(".item");
  if (!section) return hint("Go to an edit first: press the down arrow.");
  const questions = [...section.querySelectorAll("fieldset")];
  if (questions[0].disabled) return hint("Play the edit before you rate it: press Space.");
  const chosen = row.matches("fieldset") ? row : questions.find((one) => !one.querySelector(":checked")) || questions[0];
  chosen.querySelector(`input[value="${value}"]`).checked = true;
  rate(section.dataset.item, chosen.dataset.question, value);
  focusRow(chosen);
  move(1);
}

document.addEventListener("focusin", (event) => {
  const row = event.target.closest(".row");
  if (row) mark(row);
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || !main.querySelector(".row")) return;
  const onButton = document.activeElement.matches("button");
  const value = Number(event.key);
  if (event.key === " ") {
    if (onButton) return;
    const row = currentRow();
    if (row) row.closest(".card").querySelector(".play").click();
  } else if (event.key === "0") main.querySelector(".original .play").click();
  else if (event.key === "ArrowDown") move(1);
  else if (event.key === "ArrowUp") move(-1);
  else if (value >= 1 && value <= TEST.points) press(value);
  else return;
  event.preventDefault();
});

/* Another tab of this test has saved newer answers. */
window.addEventListener("storage", (event) => event.key === STORE && location.reload());
document.getElementById("download").onclick = download;
if (!stored()) save();
show();
