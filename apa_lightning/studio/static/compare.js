// A/B/X: players in step, of which one is heard, at equal loudness.
// Runs in gr.HTML: element, props (value: list of {key, name, url, image, gain}), watch.
const root = element.querySelector(".compare");
const choices = root.querySelector(".compare-choices");
const picture = root.querySelector("img");
const head = root.querySelector(".compare-head");
const play = root.querySelector(".compare-play");
const position = root.querySelector("input");
const clock = root.querySelector("output");
let players = [];
let current = 0;
let shown = "";

const audio = () => players[current]?.audio;
const time = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

function tick() {
  const one = audio();
  const length = one?.duration || 0;
  position.max = length || 1;
  position.value = one?.currentTime || 0;
  head.style.left = `${length ? (100 * one.currentTime) / length : 0}%`;
  clock.textContent = `${time(one?.currentTime || 0)} / ${time(length)}`;
  play.textContent = one && !one.paused ? "Pause" : "Play";
  if (one && !one.paused) requestAnimationFrame(tick);
}

function choose(index) {
  if (!players[index]) return;
  const before = audio();
  const running = before && !before.paused;
  current = index;
  const now = audio();
  if (before && before !== now) {
    now.currentTime = before.currentTime;
    before.pause();
    if (running) now.play().catch(() => {});
  }
  picture.src = players[index].take.image;
  players.forEach((one, i) => one.button.setAttribute("aria-pressed", i === index));
  tick();
}

function build() {
  const takes = props.value || [];
  const key = JSON.stringify(takes);
  if (key === shown) return;
  const heard = players[current]?.take.key;
  const [at, running] = [audio()?.currentTime || 0, audio() && !audio().paused];
  players.forEach((one) => one.audio.pause());
  shown = key;
  root.hidden = !takes.length;
  players = takes.map((take, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `${take.key} · ${take.name}`;
    button.addEventListener("click", () => choose(index));
    const player = new Audio();
    player.preload = "auto";
    player.src = take.url;
    player.volume = take.gain;
    for (const event of ["play", "pause", "ended", "loadedmetadata", "seeked"]) player.addEventListener(event, tick);
    return { take, audio: player, button };
  });
  choices.replaceChildren(...players.map((one) => one.button));
  current = 0;
  const wanted = takes.findIndex((take) => take.key === (heard || "B"));
  choose(Math.max(wanted, 0));
  if (audio() && at) audio().currentTime = at;
  if (running) audio().play().catch(() => {});
}

play.addEventListener("click", () => {
  if (audio()?.paused) audio().play().catch(() => {});
  else audio()?.pause();
});
position.addEventListener("input", () => {
  if (audio()) audio().currentTime = Number(position.value);
  tick();
});
root.querySelector(".region-view").addEventListener("pointerdown", (event) => {
  const box = event.currentTarget.getBoundingClientRect();
  if (audio()?.duration) audio().currentTime = ((event.clientX - box.left) / box.width) * audio().duration;
  tick();
});
root.addEventListener("keydown", (event) => {
  const index = players.findIndex((one) => one.take.key.toLowerCase() === event.key.toLowerCase());
  if (index >= 0 && !event.ctrlKey && !event.metaKey && !event.altKey) choose(index);
});
watch("value", build);
build();
