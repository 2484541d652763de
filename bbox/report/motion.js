"use strict";
// The skeleton player and the heatmap of a report. It reads the page's own data and asks nothing of anyone.
(() => {
  const ABSENT = -32768;  // stands for a joint of a body that is not there
  const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];  // viridis
  const WIDTH = 480, HEIGHT = 360, MARGIN = 22, PITCH = 0.16, GRID = 0.5;
  const root = document.querySelector(".player");
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const data = JSON.parse(document.getElementById("motion-data").textContent);
  const joints = data.joints.length;
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const state = { frame: 0, yaw: 0, playing: false, onScreen: true, row: 0 };
  let clip;

  // --- data ---------------------------------------------------------------------------------------------------------

  // int16 times a unit, little-endian as every browser is: metres.
  const unpack = ({ unit, data: text }) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const whole = new Int16Array(bytes.buffer);
    return Float32Array.from(whole, (value) => (value === ABSENT ? NaN : value * unit));
  };

  const at = (frame, body, joint) => ((frame * clip.bodies.length + body) * joints + joint) * 3;
  const there = (frame, body) => !Number.isNaN(clip.original[at(frame, body, 0)]);
  const moved = (frame, body, joint) => {
    const change = clip.changes[part("method").value], i = at(frame, body, joint);
    return 1000 * Math.hypot(change[i], change[i + 1], change[i + 2]);
  };

  const open = (number) => {
    const example = data.examples[number];
    const changes = Object.entries(example.changes).map(([name, packed]) => [name, unpack(packed)]);
    clip = { ...example, original: unpack(example.original), changes: Object.fromEntries(changes) };
    clip.count = clip.original.length / (3 * joints * clip.bodies.length);
    state.yaw = clip.yaw + 0.45;
    state.frame = state.row = 0;
    part("frame").max = clip.count - 1;
    frameCamera();
    // One scale for all methods, so that switching between them does not change what a colour means.
    let most = 0;
    for (const change of Object.values(clip.changes))
      for (let i = 0; i < change.length; i += 3) {
        const length = Math.hypot(change[i], change[i + 1], change[i + 2]);
        if (length > most) most = length;
      }
    clip.most = 1000 * most || 1;
  };

  // The camera follows the bodies over the floor, smoothly; its distance is fixed, and fits the whole clip.
  const frameCamera = () => {
    const raw = [];
    let low = Infinity, high = -Infinity;
    for (let t = 0; t < clip.count; t++) {
      let x = 0, z = 0, n = 0;
      for (let i = at(t, 0, 0); i < at(t + 1, 0, 0); i += 3) {
        if (Number.isNaN(clip.original[i])) continue;
        x += clip.original[i]; z += clip.original[i + 2]; n++;
        low = Math.min(low, clip.original[i + 1]); high = Math.max(high, clip.original[i + 1]);
      }
      raw.push(n ? [x / n, z / n] : raw[t - 1] || [0, 0]);
    }
    const reach = Math.max(1, Math.round(data.rate / data.step / 3));
    clip.centre = raw.map((_, t) => {
      const near = raw.slice(Math.max(0, t - reach), t + reach + 1);
      return [0, 1].map((k) => near.reduce((sum, place) => sum + place[k], 0) / near.length);
    });
    let radius = 0.05;
    for (let t = 0; t < clip.count; t++)
      for (let i = at(t, 0, 0); i < at(t + 1, 0, 0); i += 3) {
        const far = Math.hypot(clip.original[i] - clip.centre[t][0], clip.original[i + 2] - clip.centre[t][1]);
        if (far > radius) radius = far;
      }
    const tall = (high - low) * Math.cos(PITCH) + 2 * radius * Math.sin(PITCH);
    clip.low = low;
    clip.middle = (low + high) / 2;
    clip.radius = radius;
    clip.scale = Math.min((WIDTH - 2 * MARGIN) / (2 * radius), (HEIGHT - 2 * MARGIN) / Math.max(tall, 0.1));
  };

  // --- drawing ------------------------------------------------------------------------------------------------------

  const project = (x, y, z, frame) => {
    const [cx, cz] = clip.centre[frame], cos = Math.cos(state.yaw), sin = Math.sin(state.yaw);
    const right = (x - cx) * cos + (z - cz) * sin, toward = (z - cz) * cos - (x - cx) * sin;
    const up = (y - clip.middle) * Math.cos(PITCH) - toward * Math.sin(PITCH);
    return `${(WIDTH / 2 + clip.scale * right).toFixed(1)} ${(HEIGHT / 2 - clip.scale * up).toFixed(1)}`;
  };

  const drawBody = (name, frame, change, times) => {
    let bones = "", dots = "";
    for (let body = 0; body < clip.bodies.length; body++) {
      if (!there(frame, body)) continue;
      const points = [];
      for (let joint = 0; joint < joints; joint++) {
        const i = at(frame, body, joint), p = [0, 1, 2].map((k) => clip.original[i + k] + times * change[i + k]);
        points.push(project(...p, frame));
        dots += `M${points[joint]}h0`;
      }
      for (const [joint, parent] of data.bones) bones += `M${points[parent]}L${points[joint]}`;
    }
    part(`${name}-bones`).setAttribute("d", bones);
    part(`${name}-joints`).setAttribute("d", dots);
  };

  const drawFloor = (frame) => {
    const [cx, cz] = clip.centre[frame], reach = Math.max(1, Math.ceil(clip.radius / GRID)) * GRID;
    const lines = (centre, line) => {
      let path = "";
      for (let k = Math.ceil((centre - reach) / GRID); k <= (centre + reach) / GRID; k++) path += line(k * GRID);
      return path;
    };
    const floor = (x, z) => project(x, clip.low, z, frame);
    const path = lines(cx, (x) => `M${floor(x, cz - reach)}L${floor(x, cz + reach)}`)
      + lines(cz, (z) => `M${floor(cx - reach, z)}L${floor(cx + reach, z)}`);
    part("floor").setAttribute("d", path);
  };

  const seconds = (frame) => `${(frame * data.step / data.rate).toFixed(2)} s`;
  const frameText = (frame) => `frame ${frame * data.step + 1} of ${clip.frames}`;

  const draw = () => {
    const frame = Math.floor(state.frame), times = Number(part("times").value);
    const change = clip.changes[part("method").value];
    drawFloor(frame);
    drawBody("original", frame, change, 0);
    drawBody("changed", frame, change, times);
    part("exaggerated").textContent = times > 1 ? `change \u00d7${times}, exaggerated` : "";
    part("frame").value = frame;
    part("frame").setAttribute("aria-valuetext", `${frameText(frame)}, ${seconds(frame)}`);
    part("time").textContent = `${frameText(frame)} \u00b7 ${seconds(frame)}`;
    part("marker").style.left = `${100 * (frame + 0.5) / clip.count}%`;
    let sum = 0, n = 0, most = -1, where = "";
    for (let body = 0; body < clip.bodies.length; body++)
      for (let joint = 0; there(frame, body) && joint < joints; joint++) {
        const length = moved(frame, body, joint);
        sum += length; n++;
        if (length > most) [most, where] = [length, rowName(body * joints + joint)];
      }
    part("readout").textContent = n
      ? `In this frame joints are moved by ${(sum / n).toFixed(1)} mm in the mean, at most ${most.toFixed(1)} mm (${where}).`
      : "No body in this frame.";
  };

  // --- the heatmap --------------------------------------------------------------------------------------------------

  const rowName = (row) => {
    const name = data.joints[row % joints];
    return clip.bodies.length > 1 ? `${name}, body ${clip.bodies[Math.floor(row / joints)]}` : name;
  };

  const color = (share) => {
    const place = Math.min(share, 1) * (RAMP.length - 1), k = Math.min(Math.floor(place), RAMP.length - 2);
    return RAMP[k].map((value, c) => Math.round(value + (place - k) * (RAMP[k + 1][c] - value)));
  };

  const drawHeat = () => {
    const canvas = part("heat"), rows = joints * clip.bodies.length;
    [canvas.width, canvas.height] = [clip.count, rows];
    const image = new ImageData(clip.count, rows);
    for (let row = 0; row < rows; row++)
      for (let frame = 0; frame < clip.count; frame++) {
        const body = Math.floor(row / joints);
        if (!there(frame, body)) continue;  // left clear
        const pixel = [...color(moved(frame, body, row % joints) / clip.most), 255];
        image.data.set(pixel, 4 * (row * clip.count + frame));
      }
    canvas.getContext("2d").putImageData(image, 0, 0);
    part("field").style.setProperty("--rows", rows);
    part("joints").replaceChildren(...Array.from({ length: rows }, (_, row) => {
      const line = document.createElement("span");
      line.textContent = line.title = rowName(row);
      return line;
    }));
    part("most").textContent = `${clip.most.toFixed(1)} mm`;
    part("last").textContent = seconds(clip.count - 1);
  };

  const showCell = (frame, row) => {
    const body = Math.floor(row / joints), cell = part("cell");
    const value = there(frame, body) ? `${moved(frame, body, row % joints).toFixed(1)} mm` : "no body";
    part("value").textContent = `${rowName(row)}, ${frameText(frame)} (${seconds(frame)}): ${value}`;
    cell.hidden = false;
    cell.style.left = `${100 * frame / clip.count}%`;
    cell.style.width = `${100 / clip.count}%`;
    cell.style.top = `calc(var(--row) * ${row})`;
  };

  const cellAt = (event) => {
    const box = part("heat").getBoundingClientRect();
    const share = (value, from, size, count) => Math.max(0, Math.min(count - 1, Math.floor((value - from) / size * count)));
    return [
      share(event.clientX, box.left, box.width, clip.count),
      share(event.clientY, box.top, box.height, joints * clip.bodies.length),
    ];
  };

  // --- what is said of the motion -----------------------------------------------------------------------------------

  const line = (tag, text, className = "") => {
    const element = document.createElement(tag);
    element.textContent = text;
    element.className = className;
    return element;
  };

  const drawSaid = () => {
    const method = part("method").value, answers = clip.answers[method] || [];
    part("name").textContent = data.methods[method];
    part("details").replaceChildren(...clip.details.map((text) => line("li", text)));
    part("said").replaceChildren(...answers.flatMap(([answer, fooled], k) => [
      line("dt", data.targets[k]),
      line("dd", fooled ? `${clip.clean[k]} \u2192 ${answer}` : `${answer}, as before`, fooled ? "bad" : ""),
    ]));
  };

  const drawAll = () => { part("cell").hidden = true; part("value").textContent = ""; drawSaid(); drawHeat(); draw(); };

  // --- control ------------------------------------------------------------------------------------------------------

  let last = 0;
  const tick = (now) => {
    if (!state.playing) return;
    const passed = Math.min(0.1, (now - last) / 1000), before = Math.floor(state.frame);
    last = now;
    if (state.onScreen) state.frame += passed * Number(part("speed").value) * data.rate / data.step;
    if (state.frame >= clip.count) state.frame = 0;
    if (Math.floor(state.frame) !== before) draw();
    requestAnimationFrame(tick);
  };
  const play = (playing) => {
    if (playing && !state.playing) requestAnimationFrame((now) => { last = now; tick(now); });
    state.playing = playing;
    part("play").textContent = playing ? "Pause" : "Play";
  };
  const show = (frame) => {
    play(false);
    state.frame = Math.max(0, Math.min(clip.count - 1, frame));
    draw();
  };

  part("play").addEventListener("click", () => play(!state.playing));
  part("frame").addEventListener("input", () => show(Number(part("frame").value)));
  part("example").addEventListener("change", () => { open(Number(part("example").value)); drawAll(); });
  part("method").addEventListener("change", drawAll);
  part("times").addEventListener("change", draw);

  const stage = part("stage");
  const turn = (angle) => { state.yaw += angle; draw(); };
  let from = 0;
  stage.addEventListener("pointerdown", (event) => { from = event.clientX; stage.setPointerCapture(event.pointerId); });
  stage.addEventListener("pointermove", (event) => {
    if (!stage.hasPointerCapture(event.pointerId)) return;
    turn((from - event.clientX) * 0.012);
    from = event.clientX;
  });
  stage.addEventListener("keydown", (event) => {
    const angle = { ArrowLeft: 0.12, ArrowRight: -0.12 }[event.key];
    if (angle) turn(angle);
    else if (event.key === " ") play(!state.playing);
    else return;
    event.preventDefault();
  });

  const field = part("field");
  field.addEventListener("pointermove", (event) => showCell(...cellAt(event)));
  field.addEventListener("click", (event) => { const [frame, row] = cellAt(event); state.row = row; show(frame); showCell(frame, row); });
  field.addEventListener("focus", () => showCell(Math.floor(state.frame), state.row));
  field.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!move) return;
    event.preventDefault();
    show(Math.floor(state.frame) + move[0]);
    state.row = Math.max(0, Math.min(joints * clip.bodies.length - 1, state.row + move[1]));
    showCell(Math.floor(state.frame), state.row);
  });

  new IntersectionObserver(([entry]) => { state.onScreen = entry.isIntersecting; }).observe(stage);
  calm.addEventListener("change", () => { if (calm.matches) play(false); });
  root.classList.add("ready");
  open(0);
  drawAll();
  play(!calm.matches);
})();
