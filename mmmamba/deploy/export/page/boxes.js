// From a picture to an input, and from an output to boxes: the rules of runtime.py, to the last bit.

/**
 * Makes an input of a picture: resized with its proportions, padded at the bottom and on the right.
 *
 * @param {Uint8ClampedArray} pixels RGBA, row by row.
 * @param {number[]} size Height and width of the input.
 * @param {number} padValue Of what is added.
 * @returns {{input: Float32Array, scale: number[]}} (3, height, width), RGB from 0 to 1; and what x and y of a box were
 *     multiplied by.
 */
export function letterbox(pixels, width, height, size, padValue) {
  let ratio = Math.min(
    Math.max(...size) / Math.max(height, width), Math.min(...size) / Math.min(height, width));
  let [newWidth, newHeight] = [width, height].map(side => Math.max(Math.floor(side * ratio + 0.5), 1));
  if (newWidth > size[1] || newHeight > size[0]) {  // an upright picture for an input that lies, or the reverse
    ratio = Math.min(size[0] / height, size[1] / width);
    [newWidth, newHeight] = [width, height].map(side => Math.max(Math.floor(side * ratio), 1));
  }
  const area = size[0] * size[1];
  const input = new Float32Array(3 * area).fill(padValue / 255);
  const columns = taps(width, newWidth, true), rows = taps(height, newHeight, false);
  for (let y = 0; y < newHeight; y++) {
    const [top, bottom, topWeight, bottomWeight] = rows[y];
    for (let x = 0; x < newWidth; x++) {
      const [left, right, leftWeight, rightWeight] = columns[x];
      for (let c = 0; c < 3; c++) {
        const along = row => pixels[4 * (row * width + left) + c] * leftWeight
          + pixels[4 * (row * width + right) + c] * rightWeight >> 4;
        const value = (topWeight * along(top) >> 16) + (bottomWeight * along(bottom) >> 16) + 2 >> 2;
        input[c * area + y * size[1] + x] = value / 255;
      }
    }
  }
  return {input, scale: [newWidth / width, newHeight / height]};
}

/** For each new pixel of an axis, two old ones and their weights, in 2048ths: cv2.resize with INTER_LINEAR. */
function taps(length, newLength, atEdgesOne) {
  return Array.from({length: newLength}, (_, i) => {
    const place = Math.fround((i + 0.5) * (1 / (newLength / length)) - 0.5);
    let first = Math.floor(place), fraction = Math.fround(place - first);
    if (atEdgesOne && (first < 0 || first >= length - 1)) {
      first = Math.min(Math.max(first, 0), length - 1);
      fraction = 0;
    }
    const inside = index => Math.min(Math.max(index, 0), length - 1);
    return [inside(first), inside(first + 1), roundToEven(Math.fround(1 - fraction) * 2048), roundToEven(fraction * 2048)];
  });
}

function roundToEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

/**
 * Chooses among all cells of an image: the best boxes of each class, without those that overlap a better one.
 *
 * @param {Float32Array} output (at least 4 + classes, cells): centre, width and height, and scores.
 * @param {number[]} limits Of x and y: boxes are clipped to the picture before they are compared, as mmdet does, and
 *     those outside of it are left out.
 * @returns {number[][]} x1, y1, x2, y2, score and class, best first.
 */
export function nms(output, cells, classes, leastScore, iou, limits, most = 300) {
  const least = Math.fround(leastScore), found = [];
  for (let label = 0; label < classes; label++) {
    for (let cell = 0; cell < cells; cell++) {
      const score = output[(4 + label) * cells + cell];
      if (!(score > least)) continue;
      const corner = (axis, sign) => {
        const value = Math.fround(output[axis * cells + cell] + sign * output[(2 + axis) * cells + cell] / 2);
        return Math.min(Math.max(value, 0), limits[axis]);
      };
      const box = [corner(0, -1), corner(1, -1), corner(0, 1), corner(1, 1), score, label];
      if (hasArea(box)) found.push(box);
    }
  }
  const area = box => (box[2] - box[0]) * (box[3] - box[1]);
  const overlaps = (box, other) => {
    const inside = Math.max(Math.min(box[2], other[2]) - Math.max(box[0], other[0]), 0)
      * Math.max(Math.min(box[3], other[3]) - Math.max(box[1], other[1]), 0);
    return box[5] === other[5] && inside > iou * (area(box) + area(other) - inside);
  };
  const kept = [];
  for (const box of found.sort((a, b) => b[4] - a[4])) {
    if (kept.length === most) break;
    if (!kept.some(better => overlaps(better, box))) kept.push(box);
  }
  return kept.map(box => box.map(Math.fround));
}

/** Returns the boxes of an output in pixels of the picture, best first; `info` is detector.json. */
export function boxesOf(output, dims, info, leastScore, scale, width, height) {
  const limits = [width, height];
  const rows = info.has_nms
    ? Array.from({length: dims[1]}, (_, i) => [...output.subarray(i * dims[2], (i + 1) * dims[2])])
      .filter(row => row[4] > Math.fround(leastScore))
    : nms(output, dims[2], info.classes.length, leastScore, info.iou, [width * scale[0], height * scale[1]]);
  return rows.map(row => row.map((value, i) => i < 4
    ? Math.min(Math.max(value / scale[i % 2], 0), limits[i % 2]) : value)).filter(hasArea);
}

/** Says whether a box has an area: one in the padding, clipped to the picture, has none. */
function hasArea([left, top, right, bottom]) {
  return right > left && bottom > top;
}
