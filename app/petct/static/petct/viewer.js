// Fetches the volume (one byte a voxel) and draws the three planes from it, so that a slider moves at once.
const POLL_MS = 400;
const GIVE_UP_MS = 120_000;

const form = document.getElementById("viewer");
const status = document.getElementById("status");
const colours = JSON.parse(document.getElementById("colours").textContent);

// For each plane: the axis its slider walks along, and the axes of the picture's columns and rows. Rows run down;
// z runs up, so pictures with z are drawn from the head.
const planes = [
  { name: "axial", axis: 2, across: 0, down: 1 },
  { name: "coronal", axis: 1, across: 0, down: 2 },
  { name: "sagittal", axis: 0, across: 1, down: 2 },
].map((plane) => {
  const figure = form.querySelector("." + plane.name);
  return {
    ...plane,
    canvas: figure.querySelector("canvas"),
    image: figure.querySelector("img"),
    output: figure.querySelector("output"),
    slider: figure.querySelector("input"),
    acrossLine: figure.querySelector(".across"),
    downLine: figure.querySelector(".down"),
  };
});
const windowSlider = document.getElementById("window");
const palette = document.getElementById("palette");

let volume; // { voxels: Uint8Array, shape: [x, y, z], low, high }
let lookup; // Uint32Array: level → pixel

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function fetchVolume() {
  const started = Date.now();
  while (Date.now() - started < GIVE_UP_MS) {
    const answer = await fetch(form.dataset.volume);
    if (answer.status === 200) {
      const [low, high] = answer.headers.get("Volume-Window").split(",").map(Number);
      const shape = answer.headers.get("Volume-Shape").split(",").map(Number);
      return { voxels: new Uint8Array(await answer.arrayBuffer()), shape, low, high };
    }
    if (answer.status !== 202) {
      const isNamed = (answer.headers.get("Content-Type") || "").startsWith("application/json");
      const { error, message } = isNamed ? await answer.json() : { error: "Error " + answer.status, message: answer.statusText };
      throw Object.assign(new Error(message), { name: error });
    }
    await pause(POLL_MS);
  }
  throw Object.assign(new Error("No worker has answered for two minutes."), { name: "Timeout" });
}

function makeLookup() {
  const stops = colours[palette.value];
  const top = (255 * windowSlider.value) / 100;
  lookup = new Uint32Array(256);
  const bytes = new Uint8ClampedArray(lookup.buffer);
  for (let level = 0; level < 256; level++) {
    const where = Math.min(level / top, 1) * (stops.length - 1);
    const stop = Math.min(Math.floor(where), stops.length - 2);
    for (let channel = 0; channel < 3; channel++) {
      const [from, to] = [stops[stop][channel], stops[stop + 1][channel]];
      bytes[4 * level + channel] = from + (to - from) * (where - stop);
    }
    bytes[4 * level + 3] = 255;
  }
  document.getElementById("range").textContent =
    `${number(volume.low)} – ${number(volume.low + ((volume.high - volume.low) * windowSlider.value) / 100)}`;
}

function draw(plane) {
  const { voxels, shape } = volume;
  const strides = [shape[1] * shape[2], shape[2], 1];
  const [width, height] = [shape[plane.across], shape[plane.down]];
  const index = plane.slider.valueAsNumber;
  const picture = new ImageData(width, height);
  const pixels = new Uint32Array(picture.data.buffer);
  const flipped = plane.down === 2;
  for (let row = 0, pixel = 0; row < height; row++) {
    let voxel = index * strides[plane.axis] + (flipped ? height - 1 - row : row) * strides[plane.down];
    for (let column = 0; column < width; column++, voxel += strides[plane.across]) pixels[pixel++] = lookup[voxels[voxel]];
  }
  plane.canvas.width = width;
  plane.canvas.height = height;
  plane.canvas.getContext("2d").putImageData(picture, 0, 0);
  plane.canvas.setAttribute("aria-label", `${plane.name} slice ${index}`);
  plane.output.textContent = `${index} / ${plane.slider.max}`;
}

// Where the other two planes cut this one, and what lies where all three meet.
function mark() {
  const { voxels, shape, low, high } = volume;
  const at = [];
  for (const plane of planes) at[plane.axis] = plane.slider.valueAsNumber;
  for (const plane of planes) {
    const share = (axis) => ((at[axis] + 0.5) / shape[axis]) * 100;
    plane.downLine.style.left = share(plane.across) + "%";
    plane.acrossLine.style.top = (plane.down === 2 ? 100 - share(2) : share(plane.down)) + "%";
  }
  const level = voxels[(at[0] * shape[1] + at[1]) * shape[2] + at[2]];
  const value = low + ((high - low) * level) / 255;
  const [voxel, shown] = document.querySelectorAll("#voxel dd");
  voxel.textContent = at.join(", ");
  shown.textContent = (level === 255 ? "≥ " : level === 0 ? "≤ " : "≈ ") + number(value);
}

const number = (value) => Number(value.toPrecision(3)).toString();

function drawAll() {
  makeLookup();
  planes.forEach(draw);
  mark();
}

function move(plane, index) {
  plane.slider.value = index;
  draw(plane);
  mark();
}

function start() {
  for (const plane of planes) {
    const { canvas, slider } = plane;
    const wasWaiting = slider.disabled;
    slider.max = volume.shape[plane.axis] - 1;
    if (wasWaiting) slider.value = Math.floor(volume.shape[plane.axis] / 2);
    slider.disabled = false;
    slider.addEventListener("input", () => move(plane, slider.value));
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      move(plane, slider.valueAsNumber - Math.sign(event.deltaY));
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      cut(plane, event);
    });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons) cut(plane, event); });
    if (plane.image) plane.image.hidden = true;
    canvas.hidden = plane.acrossLine.hidden = plane.downLine.hidden = false;
  }
  windowSlider.addEventListener("input", drawAll);
  palette.addEventListener("change", drawAll);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.querySelectorAll("#voxel, .controls, .hint").forEach((part) => { part.hidden = false; });
  drawAll();
}

// Put the other two planes where the picture was clicked.
function cut(plane, event) {
  const box = plane.canvas.getBoundingClientRect();
  const index = (share, axis) => Math.min(Math.max(Math.floor(share * volume.shape[axis]), 0), volume.shape[axis] - 1);
  const down = (event.clientY - box.top) / box.height;
  const found = {
    [plane.across]: index((event.clientX - box.left) / box.width, plane.across),
    [plane.down]: index(plane.down === 2 ? 1 - down : down, plane.down),
  };
  planes.filter((other) => other.axis in found).forEach((other) => move(other, found[other.axis]));
}

fetchVolume().then((fetched) => {
  volume = fetched;
  start();
  form.dataset.state = "live";
  status.hidden = true;
}, (error) => {
  form.dataset.state = "failed";
  status.hidden = false;
  const name = Object.assign(document.createElement("strong"), { className: "error", textContent: error.name });
  const again = Object.assign(document.createElement("a"), { href: "?userID=" + encodeURIComponent(form.elements.userID.value), textContent: "Try again" });
  status.replaceChildren(name, document.createTextNode(`: ${error.message} `), again);
});
