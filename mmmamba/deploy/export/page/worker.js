// The network, off the page's own thread. Takes {open: info, provider, threads}, then pictures; answers each once.
import {boxesOf, letterbox} from './boxes.js';

let ort, session, info;

async function open({provider, threads}) {
  ort = await import(`./ort/${provider}.js`);
  const file = name => new URL(`ort/${provider}-binary.${name}`, import.meta.url).href;
  Object.assign(ort.env.wasm, {numThreads: threads, wasmPaths: {mjs: file('js'), wasm: file('wasm')}});
  // A scan is thousands of small steps: on a GPU each would be a launch.
  const forceCpuNodeNames = Array.from({length: info.scan_nodes}, (_, i) => `scan${i}`);
  session = await ort.InferenceSession.create('detector.onnx', {
    executionProviders: [provider === 'webgpu' ? {name: provider, forceCpuNodeNames} : provider], logSeverityLevel: 3});
}

async function detect({pixels, width, height, score}) {
  const start = performance.now();
  const {input, scale} = letterbox(new Uint8ClampedArray(pixels), width, height, info.size, info.pad_value);
  const images = new ort.Tensor('float32', input, [1, 3, ...info.size]);
  const ready = performance.now();
  const {data, dims} = Object.values(await session.run({[session.inputNames[0]]: images}))[0];
  const done = performance.now();
  const boxes = boxesOf(data, dims, info, score, scale, width, height);
  return {boxes, times: {network: done - ready, rest: ready - start + performance.now() - done}};
}

onmessage = async ({data}) => {
  try {
    if (data.open) {
      info = data.open;
      await open(data);
      postMessage({opened: true});
    } else {
      postMessage(await detect(data));
    }
  } catch (error) {
    postMessage({error: String(error?.message ?? error).split('\n')[0].slice(0, 200)});
  }
};
