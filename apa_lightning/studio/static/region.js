// Drawing a region on the picture of a recording, by mouse, finger or keyboard.
// Runs in gr.HTML: element, props (value {start, end} or null; image, seconds), trigger, watch.
const view = element.querySelector(".region-view");
const picture = view.querySelector("img");
const band = view.querySelector(".region-band");
const [from, to] = element.querySelectorAll("input");
const all = element.querySelector("button");
let anchor = null;

const rounded = (seconds) => Math.round(seconds * 100) / 100;
const within = (seconds) => rounded(Math.min(Math.max(seconds, 0), props.seconds || 0));

function show(region) {
  band.hidden = !region;
  if (region) {
    band.style.left = `${(100 * region.start) / props.seconds}%`;
    band.style.width = `${(100 * (region.end - region.start)) / props.seconds}%`;
  }
  if (document.activeElement !== from) from.value = region ? region.start : "";
  if (document.activeElement !== to) to.value = region ? region.end : "";
  all.disabled = !region;
}

function refresh() {
  element.querySelector(".region").hidden = !props.image;
  if (props.image && picture.getAttribute("src") !== props.image) picture.src = props.image;
  from.max = to.max = props.seconds || 0;
  show(props.value);
}

function choose(region) {
  props.value = region;
  show(region);
  trigger("input");
}

function secondsAt(event) {
  const box = view.getBoundingClientRect();
  return within(((event.clientX - box.left) / box.width) * props.seconds);
}

function between(one, other) {
  return { start: Math.min(one, other), end: Math.max(one, other) };
}

view.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !props.seconds) return;
  event.preventDefault();
  anchor = secondsAt(event);
  view.setPointerCapture(event.pointerId);
});
view.addEventListener("pointermove", (event) => {
  if (anchor !== null) show(between(anchor, secondsAt(event)));
});
view.addEventListener("pointerup", (event) => {
  if (anchor === null) return;
  const region = between(anchor, secondsAt(event));
  anchor = null;
  // A click without a drag takes the region away.
  choose(region.end - region.start < props.seconds / 200 ? null : region);
});
view.addEventListener("pointercancel", () => {
  anchor = null;
  show(props.value);
});

function typed() {
  if (from.value === "" && to.value === "") return choose(null);
  const start = within(from.value === "" ? 0 : Number(from.value));
  const end = within(to.value === "" ? props.seconds : Number(to.value));
  if (start < end) choose({ start, end });
  else show(props.value);
}
from.addEventListener("change", typed);
to.addEventListener("change", typed);
all.addEventListener("click", () => choose(null));
watch(["value", "image", "seconds"], refresh);
refresh();
