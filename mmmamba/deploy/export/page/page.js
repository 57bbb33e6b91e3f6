// The page: pictures go to worker.js, its boxes onto the canvas. Names are written as text, never as HTML.
const LEAST_SCORE = 0.05;  // boxes below are not kept; those above are chosen from without another run
const MOST_THREADS = 4;  // more gain little, and a phone's other cores are slow
const element = id => document.getElementById(id);
const picture = document.createElement('canvas');
const context = picture.getContext('2d', {willReadFrequently: true});
let info, worker, ready, camera = null, found = null, latest = 0;
const waiting = [];

class Problem extends Error {}  // its message is a line for the user

function say(text) { element('status').textContent = text; }

function complain(error) {
  element('problem').textContent = error instanceof Problem ? error.message : `This failed: ${error?.message ?? error}`;
  if (element('status').textContent.endsWith('…')) say('');
}

/** Runs what a user asked for; a failure becomes one line on the page. */
async function attempt(action) {
  element('problem').textContent = '';
  try { await action(); } catch (error) { complain(error); }
}

function ask(message, transfer = []) {
  return new Promise((resolve, reject) => {
    waiting.push({resolve, reject});
    worker.postMessage(message, transfer);
  });
}

async function start() {
  const [provider, threads] = JSON.parse(element('how').value);
  worker?.terminate();
  waiting.splice(0).forEach(({reject}) => reject(new Problem('Stopped: the network was changed to run elsewhere.')));
  worker = new Worker('worker.js', {type: 'module'});
  worker.onmessage = ({data}) => {
    const {resolve, reject} = waiting.shift();
    data.error ? reject(new Problem(`The network cannot run: ${data.error}`)) : resolve(data);
  };
  worker.onerror = event => waiting.splice(0).forEach(({reject}) => reject(
    new Problem(`The network cannot run: ${event.message ?? 'worker.js does not load'}`)));
  say('Loading the model…');
  try {
    await ask({open: info, provider, threads});
  } catch (error) {
    if (provider !== 'webgpu') throw error;
    element('note').textContent = `${error.message} It runs on the CPU instead.`;
    element('how').selectedOptions[0].remove();
    return start();
  }
  say('Ready for a picture.');
}

async function detect(source, width, height) {
  await ready;
  const turn = ++latest;
  found = null;
  [picture.width, picture.height] = [width, height];
  context.drawImage(source, 0, 0);
  const pixels = context.getImageData(0, 0, width, height).data.buffer;
  if (!camera) say('Looking…');
  const answer = await ask({pixels, width, height, score: LEAST_SCORE}, [pixels]);
  if (turn !== latest) return;  // there is another picture meanwhile
  found = {...answer, how: element('how').selectedOptions[0].textContent};
  draw();
}

async function detectFile(file) {
  stopCamera();
  let bitmap;
  try {  // with its pixels as they are stored, but upright
    bitmap = await createImageBitmap(file, {colorSpaceConversion: 'none', premultiplyAlpha: 'none'});
  } catch {
    throw new Problem(`${file.name} is not a picture that this browser can read.`);
  }
  await detect(bitmap, bitmap.width, bitmap.height);
  bitmap.close();
}

function stopCamera() {
  camera?.getTracks().forEach(track => track.stop());
  camera = null;
  element('camera').textContent = 'Use the camera';
}

async function toggleCamera() {
  if (camera) return stopCamera();
  const video = document.createElement('video');
  element('camera').disabled = true;  // while the visitor is asked
  try {
    camera = await navigator.mediaDevices.getUserMedia({video: {facingMode: 'environment'}});
    Object.assign(video, {muted: true, playsInline: true, srcObject: camera});
    await video.play();
  } catch (error) {
    stopCamera();
    throw new Problem(`The camera cannot be used: ${isSecureContext ? error.message : 'the page must come over https'}.`);
  } finally {
    element('camera').disabled = false;
  }
  element('camera').textContent = 'Stop the camera';
  try {
    while (camera) {
      await detect(video, video.videoWidth, video.videoHeight);
      await new Promise(requestAnimationFrame);
    }
  } finally {
    stopCamera();
  }
}

function draw() {
  element('least').textContent = Number(element('score').value).toFixed(2);
  if (!found) return;
  const least = Number(element('score').value);
  const chosen = new Set([...element('classes').querySelectorAll(':checked')].map(box => Number(box.value)));
  const boxes = found.boxes.filter(box => box[4] > least && chosen.has(box[5]));
  const nameOf = box => `${info.classes[box[5]] ?? box[5]}: ${box[4].toFixed(2)}`;
  globalThis.detections = boxes;  // for the console: x1, y1, x2, y2, score, class

  const view = element('view'), pen = view.getContext('2d');
  const width = Math.min(view.parentElement.clientWidth - 32, innerHeight * 0.75 * picture.width / picture.height);
  const scale = width / picture.width, density = devicePixelRatio;
  view.hidden = false;
  [view.width, view.height] = [width, picture.height * scale].map(side => Math.max(Math.round(side * density), 1));
  view.style.width = `${width}px`;
  pen.scale(density, density);
  pen.drawImage(picture, 0, 0, width, picture.height * scale);
  pen.font = '600 14px system-ui, sans-serif';
  for (const box of [...boxes].reverse()) {  // the best on top
    const [x1, y1, x2, y2] = box.slice(0, 4).map(value => value * scale);
    const text = nameOf(box), colour = `hsl(${box[5] * 137.5 % 360} 85% 70%)`;
    for (const [line, style] of [[4, '#000a'], [2, colour]]) {
      pen.lineWidth = line;
      pen.strokeStyle = style;
      pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
    }
    const length = pen.measureText(text).width + 8;
    const left = Math.max(Math.min(x1, width - length), 0), top = Math.max(y1 - 20, 0);
    pen.fillStyle = colour;
    pen.fillRect(left, top, length, 20);
    pen.fillStyle = '#000';
    pen.fillText(text, left + 4, top + 15);
  }
  const count = `${boxes.length} object${boxes.length === 1 ? '' : 's'}`;
  view.setAttribute('aria-label', `The picture with ${count}`);
  element('objects').replaceChildren(...boxes.map(box => {
    const item = document.createElement('li');
    item.textContent = nameOf(box);
    return item;
  }));
  const {network, rest} = found.times;
  say(`${count}; network ${network.toFixed(0)} ms, the rest ${rest.toFixed(0)} ms; ${found.how}.`);
}

/** Has isolate.js add the headers for threads, if the host does not send them; the page is loaded once more. */
async function isolate() {
  try {
    if (crossOriginIsolated || sessionStorage.isolated) return;
    sessionStorage.isolated = true;
    await navigator.serviceWorker.register('isolate.js');
    await navigator.serviceWorker.ready;
  } catch {
    return;  // not allowed here: one thread
  }
  location.reload();
  await new Promise(() => {});
}

function addOption(text, provider, threads) {
  element('how').add(new Option(text, JSON.stringify([provider, threads])));
}

async function prepare() {
  say('Loading the page…');
  await isolate();
  info = await fetch('detector.json').then(response => response.json()).catch(() => {
    throw new Problem('detector.json cannot be loaded: build the page again.');
  });
  document.title = `${info.title}: objects in a picture`;
  document.querySelector('h1').textContent = `Objects in a picture: ${info.title}`;
  element('score').value = info.score;
  element('classes').append(...info.classes.map((name, value) => {
    const label = document.createElement('label');
    const box = Object.assign(document.createElement('input'), {type: 'checkbox', checked: true, value});
    label.append(box, ` ${name}`);
    return label;
  }));
  const threads = crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, MOST_THREADS) : 1;
  if (threads > 1) addOption(`CPU, ${threads} threads`, 'wasm', threads);
  addOption('CPU, 1 thread', 'wasm', 1);
  const gpu = await navigator.gpu?.requestAdapter().catch(() => null);
  if (gpu) {
    addOption('GPU (WebGPU)', 'webgpu', threads);
    if (!gpu.info?.isFallbackAdapter) element('how').selectedIndex = element('how').length - 1;
  }
  if (!crossOriginIsolated) {
    element('note').textContent = 'One thread only: this browser has no cross-origin isolation here. It takes https or '
      + 'localhost, and the headers COOP and COEP from the host or from isolate.js.';
  }
  draw();
  return start();
}

element('file').addEventListener('change', ({target}) => {
  const [file] = target.files;
  if (file) attempt(() => detectFile(file));
  target.value = '';  // the same picture may be chosen again
});
element('camera').addEventListener('click', () => attempt(toggleCamera));
element('how').addEventListener('change', () => attempt(() => ready = start()));
element('score').addEventListener('input', draw);
element('classes').addEventListener('change', draw);
for (const [id, checked] of [['all', true], ['none', false]]) {
  element(id).addEventListener('click', () => {
    element('classes').querySelectorAll('input').forEach(box => box.checked = checked);
    draw();
  });
}
addEventListener('resize', draw);
addEventListener('dragover', event => {
  event.preventDefault();
  document.body.classList.add('over');
});
addEventListener('dragleave', () => document.body.classList.remove('over'));
addEventListener('drop', event => {
  event.preventDefault();
  document.body.classList.remove('over');
  const [file] = event.dataTransfer.files;
  attempt(() => {
    if (!file) throw new Problem('Drop a picture as a file.');
    return detectFile(file);
  });
});
attempt(() => ready = prepare());
