"use strict";
(async () => {
  const data = JSON.parse(await inflated(document.getElementById("data").textContent));
  const at = (id) => document.getElementById(id);
  const images = data.images;
  const colors = bytesOf(data.colors); // 256 times red, green, blue, opacity
  const LONGER_SIDE = 360; // pixels of the map's canvas; the browser stretches it over the image
  const PACE = 900; // milliseconds a word
  // word: the one that is shown; pinned: the one that is shown when no word is hovered over or has the focus.
  const state = { order: images.map((_, i) => i), image: -1, beam: 0, word: 0, pinned: 0, highest: true, playing: 0 };
  const CONTOURS = [[0.8, "#56b4e9"], [0.5, "#d55e00"]]; // shares of the attention that the lines enclose

  // ------------------------------------------------------------ text and numbers

  function bytesOf(base64) {
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  }

  // The text that Python's zlib compressed.
  function inflated(base64) {
    return new Response(new Blob([bytesOf(base64)]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
  }

  // Text enters the page here and nowhere else, always as a text node: a caption may hold anything.
  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function phrase(tag, className, text) {
    const made = element(tag, className, text);
    made.dir = "auto"; // each by its own first letter, whatever stands around it
    return made;
  }

  // dir="auto" on the group would see nothing: it skips what has a direction of its own, as each word does.
  function direction(words) {
    const letter = words.join(" ").match(/\p{L}/u);
    return letter && /[\p{sc=Hebr}\p{sc=Arab}\p{sc=Syrc}\p{sc=Thaa}\p{sc=Nkoo}]/u.test(letter[0]) ? "rtl" : "ltr";
  }

  const isolated = (text) => `\u2068${text}\u2069`; // a right-to-left word does not turn the sentence around it
  const short = (value) =>
    value === null || value === undefined ? "?" : Math.abs(value) < 9.9995 ? value.toFixed(3) : value.toFixed(1);
  const chance = (p) => (p === null ? "?" : p < 0.005 && p > 0 ? "<0.01" : p.toFixed(2));
  const times = (value) => (value >= 9.95 ? value.toFixed(0) : value.toFixed(1)) + "×";
  const textOf = (beam) => beam.words.join(" ").replaceAll(" ,", ",") || "(empty caption)";
  // As people write it: an initial capital, and a period unless it is a list with commas.
  const sentenceOf = (beam) => {
    if (!beam.words.length) return textOf(beam);
    const text = textOf(beam);
    return text.charAt(0).toUpperCase() + text.slice(1) + (/,|[.!?。]$/.test(text) ? "" : ".");
  };
  const beamNow = () => images[state.image].beams[state.beam];

  function bar(p, low) {
    const outer = element("span", "bar" + (low ? " low" : ""));
    const inner = element("i");
    inner.style.width = `${100 * (p || 0)}%`;
    outer.append(inner);
    return outer;
  }

  // ------------------------------------------------------------ maps

  // The maps of a beam in times uniform, unpacked when it is first looked at: {rows, cols, box, most, values}.
  function mapsOf(beam) {
    if (beam.maps && !beam.maps.values) {
      const { rows, cols, most } = beam.maps;
      const steps = bytesOf(beam.maps.steps);
      beam.maps.values = most.map((top, word) =>
        Float32Array.from(steps.subarray(word * rows * cols, (word + 1) * rows * cols), (step) => (step / 255) * top));
    }
    return beam.maps;
  }

  // For each of `length` pixels along a side, four cells and their weights: Keys' cubic kernel with a = -0.5, as
  // Pillow's BICUBIC; the border's value goes on to the image's edge. Not smooth: the cell that the pixel lies in.
  function taps(cells, length, first, last, smooth) {
    const cubic = (x) => (x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0);
    const inside = (cell) => Math.min(Math.max(cell, 0), cells - 1);
    return Array.from({ length }, (_, pixel) => {
      const place = (((pixel + 0.5) / length - first) * cells) / (last - first);
      if (!smooth) return [[inside(Math.floor(place)), 1]];
      const below = Math.floor(place - 0.5);
      return [-1, 0, 1, 2].map((k) => [inside(below + k), cubic(Math.abs(place - 0.5 - below - k))]);
    });
  }

  function enlarged(maps, word, width, height, smooth) {
    const { rows, cols, box: [left, top, right, bottom] } = maps;
    const values = maps.values[word];
    const across = taps(cols, width, left, right, smooth);
    const down = taps(rows, height, top, bottom, smooth);
    const wide = new Float32Array(rows * width);
    for (let row = 0; row < rows; row++)
      for (let x = 0; x < width; x++) {
        let sum = 0;
        for (const [cell, weight] of across[x]) sum += weight * values[row * cols + cell];
        wide[row * width + x] = sum;
      }
    const low = Math.min(...values), high = Math.max(...values);
    const result = new Float32Array(width * height);
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++) {
        let sum = 0;
        for (const [cell, weight] of down[y]) sum += weight * wide[cell * width + x];
        result[y * width + x] = Math.min(Math.max(sum, low), high); // no dark ring around a peak
      }
    return result;
  }

  // Pixels outside the box of the grid, or below the threshold, stay clear.
  function visible(values, width, height, top, [left, top_, right, bottom], threshold) {
    const [x0, x1] = [Math.round(left * width), Math.round(right * width)];
    const [y0, y1] = [Math.round(top_ * height), Math.round(bottom * height)];
    return Uint8Array.from(values, (value, pixel) => {
      const x = pixel % width, y = Math.floor(pixel / width);
      return x >= x0 && x < x1 && y >= y0 && y < y1 && value >= threshold * top ? 1 : 0;
    });
  }

  // An empty canvas of that size.
  function emptied(canvas, width, height) {
    canvas.width = width;
    canvas.height = height;
    return canvas.getContext("2d");
  }

  function paint(canvas, values, width, height, top, clear) {
    const context = emptied(canvas, width, height);
    const image = context.createImageData(width, height);
    values.forEach((value, pixel) => {
      const color = 4 * Math.min(255, Math.floor((value / (top || 1)) * 256));
      if (!clear || clear[pixel]) image.data.set(colors.subarray(color, color + 4), 4 * pixel);
    });
    context.putImageData(image, 0, 0);
  }

  // The photograph itself, as opaque as the model looked; below it the page shows it pale and gray.
  function paintReveal(canvas, values, width, height, top, clear) {
    const context = emptied(canvas, width, height);
    context.drawImage(at("photo"), 0, 0, width, height);
    const image = context.getImageData(0, 0, width, height);
    values.forEach((value, pixel) => {
      image.data[4 * pixel + 3] = clear[pixel] ? 255 * Math.min(1, value / top) : 0;
    });
    context.putImageData(image, 0, 0);
  }

  // Lines around the smallest areas that hold 80% and 50% of the attention.
  function paintContours(canvas, values, width, height, clear) {
    const context = emptied(canvas, width, height);
    const falling = Float32Array.from(values.filter((_, pixel) => clear[pixel])).sort().reverse();
    const all = falling.reduce((sum, value) => sum + value, 0);
    if (!(falling[0] > falling[falling.length - 1])) return; // an even map has no such line
    for (const [share, color] of CONTOURS) {
      let sum = 0;
      const level = falling[Math.max(0, falling.findIndex((value) => (sum += value) >= share * all))];
      const edges = [];
      for (let y = 0; y < height; y++)
        for (let x = 0; x < width; x++) {
          const pixel = y * width + x;
          if (!clear[pixel] || values[pixel] < level) continue;
          const beside = [[x - 1, y], [x + 1, y], [x, y - 1], [x, y + 1]];
          if (beside.some(([i, k]) => i >= 0 && k >= 0 && i < width && k < height && clear[k * width + i] && values[k * width + i] < level))
            edges.push([x, y]);
        }
      for (const [style, radius] of [["#ffffff", 2], [color, 1]]) {
        context.fillStyle = style;
        for (const [x, y] of edges) context.fillRect(x - radius, y - radius, 2 * radius + 1, 2 * radius + 1);
      }
    }
  }

  // The end of a map's scale in times uniform: at least 2, so that an even map looks even.
  const topOf = (maps, word) => Math.max(2, at("onescale").checked ? Math.max(...maps.most) : maps.most[word]);

  // The middle of the cell with the most attention, as fractions of the image.
  function peakOf(maps, word) {
    const values = maps.values[word];
    const cell = values.indexOf(Math.max(...values));
    const [left, top, right, bottom] = maps.box;
    const x = left + ((right - left) * ((cell % maps.cols) + 0.5)) / maps.cols;
    const y = top + ((bottom - top) * (Math.floor(cell / maps.cols) + 0.5)) / maps.rows;
    return [x, y];
  }

  function placeName(x, y) {
    const down = y < 1 / 3 ? "upper" : y > 2 / 3 ? "lower" : "";
    const across = x < 1 / 3 ? "left" : x > 2 / 3 ? "right" : "";
    if (!down && !across) return "center";
    return down && across ? `${down} ${across}` : down ? `${down} middle` : `${across} middle`;
  }

  // ------------------------------------------------------------ a word

  // Show a word: called for hovering, touch, the Tab key and the slider. 0 is the image alone.
  function show(word) {
    const beam = beamNow();
    const maps = mapsOf(beam);
    state.word = word;
    at("slider").value = word;
    at("slider").disabled = !beam.words.length;
    at("position").textContent = `${word} of ${beam.words.length}`;
    at("slider").setAttribute("aria-valuetext", word ? `word ${word} of ${beam.words.length}, ${beam.words[word - 1]}` : "the image alone");
    [...at("words").children].forEach((button, i) => {
      button.setAttribute("aria-pressed", String(i + 1 === word));
      button.classList.toggle("pinned", i + 1 === state.pinned);
    });
    const mode = at("mode").value;
    at("frame").dataset.mode = word && maps ? mode : "";
    at("map").style.opacity = word && maps ? at("strength").value / 100 : 0;
    showBoxes("boxes", shownBoxes(beam, word));
    showOther(beam, word);
    at("peak").hidden = at("here").hidden = true;
    at("scale").classList.toggle("idle", !(word && maps));
    at("scale").classList.toggle("lines", mode === "contour");
    at("threshold").disabled = mode === "contour"; // the lines enclose shares of the whole map
    if (word && maps) {
      lay(at("map"), maps, word - 1);
      const [x, y] = peakOf(maps, word - 1);
      at("peak").style.left = `${100 * x}%`;
      at("peak").style.top = `${100 * y}%`;
      at("peak").hidden = maps.most[word - 1] < 1.005; // an even map has no peak
      at("most").textContent = `${times(topOf(maps, word - 1))}${otherTop(beam, word)} uniform`;
    }
    at("now").textContent = word ? `${beam.words[word - 1]}${beam.p ? ` ${chance(beam.p[word - 1])}` : ""}` : "";
    at("readout").textContent = readout(beam, maps, word);
    showAlternatives(beam, word);
  }

  // Lays the map of a word (from 0) over the photograph, in the mode that was chosen.
  function lay(canvas, maps, word) {
    const mode = at("mode").value;
    const [width, height] = images[state.image].size;
    const scale = LONGER_SIDE / Math.max(width, height);
    const across = Math.max(1, Math.round(width * scale)), down = Math.max(1, Math.round(height * scale));
    const values = enlarged(maps, word, across, down, !at("cells").checked);
    const top = topOf(maps, word);
    const clear = visible(values, across, down, top, maps.box, mode === "contour" ? 0 : at("threshold").value / 100);
    if (mode === "reveal") paintReveal(canvas, values, across, down, top, clear);
    else if (mode === "contour") paintContours(canvas, values, across, down, clear);
    else paint(canvas, values, across, down, top, clear);
  }

  // The phrase with boxes that a word belongs to: [first word, word after the last, name, boxes].
  const phraseOf = (beam, word) => (beam.boxes || []).find(([start, end]) => word > start && word <= end);

  const shownBoxes = (beam, word) => (at("withboxes").checked && phraseOf(beam, word)?.[3]) || [];

  function showBoxes(id, boxes) {
    at(id).replaceChildren(...boxes.map(([left, top, right, bottom]) => {
      const drawn = element("span", "box");
      Object.assign(drawn.style, {
        left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%`,
      });
      return drawn;
    }));
  }

  // Where the other run says a word; -1 where it does not, or where there is no other.
  function placeInOther(beam, word) {
    const other = images[state.image].other;
    return other && word ? matching(beam.words, other.words)[word - 1] : -1;
  }

  // The other run, where two are compared: its map of the same word, if it says it.
  function showOther(beam, word) {
    const other = images[state.image].other;
    if (!other) return;
    const maps = mapsOf(other);
    const same = placeInOther(beam, word);
    showBoxes("otherboxes", same >= 0 ? shownBoxes(beam, word) : []);
    at("otherframe").dataset.mode = same >= 0 && maps ? at("mode").value : "";
    at("othermap").style.opacity = same >= 0 && maps ? at("strength").value / 100 : 0;
    if (same >= 0 && maps) lay(at("othermap"), maps, same);
    [...at("othercaption").querySelectorAll("span")].forEach((span, i) => span.classList.toggle("now", i === same));
  }

  // The end of the other map's scale, where two maps are shown.
  function otherTop(beam, word) {
    const other = images[state.image].other;
    const same = placeInOther(beam, word);
    return same >= 0 && other.maps ? ` and ${times(topOf(mapsOf(other), same))}` : "";
  }

  function comparison(beam, word) {
    const other = images[state.image].other;
    if (!other || !word) return "";
    const same = placeInOther(beam, word);
    if (same < 0) return ` ${isolated(data.runs[1])} does not say it.`;
    return ` ${isolated(data.runs[1])} says it as well${other.p ? `, with probability ${chance(other.p[same])}` : ""}.`;
  }

  function readout(beam, maps, word) {
    if (!beam.words.length) return "The caption is empty.";
    if (!word) return maps ? "Point at or touch a word to see where the model looked; click it or press Enter to keep it." : "Choose a word.";
    let text = `Word ${word} of ${beam.words.length}, “${isolated(beam.words[word - 1])}”`;
    text += beam.p ? `: probability ${chance(beam.p[word - 1])}.` : ".";
    if (beam.wrong.includes(word - 1)) text += ` It is ${data.wrong_label}.`;
    text += comparison(beam, word);
    if (!maps) return text;
    const most = maps.most[word - 1];
    if (most < 1.005) return `${text} The map is uniform: all places alike.`;
    const [x, y] = peakOf(maps, word - 1);
    const where = `${Math.round(100 * x)}% across, ${Math.round(100 * y)}% down`;
    const named = phraseOf(beam, word);
    const hit = named && named[3].some(([left, top, right, bottom]) => left <= x && x <= right && top <= y && y <= bottom);
    const inside = named ? ` The peak is ${hit ? "inside" : "outside"} the box of “${isolated(named[2])}”.` : "";
    return `${text} Peak at the ${placeName(x, y)} (${where}): ${times(most).replace("×", " times")} uniform.${inside}`;
  }

  // As high as the longest text of a caption needs: the words below stay where they are pointed at.
  function reserve() {
    const beam = beamNow(), probe = at("readout").cloneNode();
    probe.removeAttribute("id");
    probe.setAttribute("aria-hidden", "true");
    at("readout").after(probe);
    let height = 0;
    for (let word = 0; word <= beam.words.length; word++) {
      probe.textContent = readout(beam, beam.maps, word);
      height = Math.max(height, Math.ceil(probe.getBoundingClientRect().height));
    }
    probe.remove();
    at("readout").style.minHeight = `${height}px`;
  }

  function showAlternatives(beam, word) {
    const own = beam.alternatives && word ? beam.alternatives[word - 1] : [];
    const taken = word ? beam.words[word - 1] : "";
    at("weighed").hidden = !beam.alternatives;
    at("noalternatives").hidden = own.length > 0;
    at("noalternatives").textContent = word
      ? "No words were kept here."
      : "Choose a word to see what else the captioner could have said there.";
    // The search may take a word that is not among the likeliest; a word of several pieces is not one of them either.
    const listed = !beam.p || !own.length || own.some(([text]) => text === taken) ? own : [...own, [taken, beam.p[word - 1]]];
    at("alternatives").replaceChildren(...listed.map(([text, p]) => {
      const item = element("li", "weighed" + (text === taken ? " taken" : ""));
      const ending = text === "<end>";
      item.append(phrase("span", "text" + (ending ? " special" : ""), ending ? "the end" : text), bar(p),
        element("span", "p", chance(p)));
      if (text === taken) item.setAttribute("aria-current", "true");
      return item;
    }));
  }

  // ------------------------------------------------------------ a caption

  function showBeam(number) {
    state.beam = number;
    const beam = beamNow();
    const maps = mapsOf(beam);
    const ratio = images[state.image].size[0] / images[state.image].size[1];
    at("words").dir = direction(beam.words);
    at("slider").max = beam.words.length;
    at("play").disabled = !beam.words.length;
    const other = images[state.image].other;
    const differs = other ? differing(beam.words, other.words) : [];
    at("words").replaceChildren(...beam.words.map((word, i) => {
      const button = element("button", beam.wrong.includes(i) ? "word wrong" : "word");
      button.type = "button";
      button.dataset.word = i + 1;
      button.classList.toggle("differs", !!differs[i]); // undefined would switch it on
      if (maps) {
        const small = element("canvas");
        small.style.width = `${Math.min(Math.max(40 * ratio, 28), 60)}px`;
        button.append(small);
      }
      button.append(phrase("span", "text", word || "\u00a0"));
      if (beam.p) button.append(bar(beam.p[i], beam.p[i] < 0.5), element("span", "p", chance(beam.p[i])));
      button.setAttribute("aria-label", `${isolated(word)}${beam.p ? `, probability ${chance(beam.p[i])}` : ""}${beam.wrong.includes(i) ? `, ${data.wrong_label}` : ""}${differs[i] ? `, not said by ${isolated(data.runs[1])}` : ""}`);
      return button;
    }));
    paintSmall();
    [...at("beams").children].forEach((item, i) =>
      item.firstChild.setAttribute("aria-pressed", String(i === number)));
    at("nomaps").hidden = !!maps || !beam.words.length;
    at("nomaps").textContent = "There are no maps: this captioner has no attention (as Show and Tell, which reads the whole image once).";
    at("looks").hidden = at("scale").hidden = !maps;
    at("legend").textContent = [
      beam.p ? "Bars are probabilities; an orange bar is below 0.5." : "",
      other ? "A dashed frame marks a word that the other run does not say." : "",
      beam.wrong.length || other?.wrong.length ? `A wavy line marks a word that is ${data.wrong_label}.` : "",
    ].join(" ").trim();
    if (other) fillOther(other, beam);
    state.pinned = 0;
    reserve();
    show(0);
  }

  function fillOther(other, beam) {
    const same = new Set(matching(beam.words, other.words)); // not matched anew, which could pair other words
    const differs = other.words.map((_, i) => !same.has(i));
    at("othercaption").dir = direction(other.words);
    at("othercaption").replaceChildren(...other.words.flatMap((word, i) =>
      [i ? " " : "", element("span", `${differs[i] ? "differs" : ""} ${other.wrong.includes(i) ? "wrong" : ""}`.trim(), word)]));
    if (!other.words.length) at("othercaption").append(textOf(other));
    const count = differs.filter(Boolean).length;
    at("againsthead").textContent = `${data.runs[1]}: ${count ? `${count} of ${differs.length} words differ` : "the same words"}`
      + (other.maps ? "" : "; no maps, for it has no attention");
  }

  function paintSmall() {
    const maps = mapsOf(beamNow());
    if (!maps) return;
    document.querySelectorAll(".word canvas").forEach((canvas, word) =>
      paint(canvas, maps.values[word], maps.cols, maps.rows, topOf(maps, word)));
  }

  // For each word of `other` its place in `best`, by the longest common subsequence; -1 for a word that is not in it.
  function matching(other, best) {
    const length = Array.from({ length: other.length + 1 }, () => new Uint16Array(best.length + 1));
    for (let i = other.length - 1; i >= 0; i--)
      for (let k = best.length - 1; k >= 0; k--)
        length[i][k] = other[i] === best[k] ? length[i + 1][k + 1] + 1 : Math.max(length[i + 1][k], length[i][k + 1]);
    const places = other.map(() => -1);
    for (let i = 0, k = 0; i < other.length && k < best.length; )
      if (other[i] === best[k]) { places[i] = k; i++; k++; }
      else if (length[i + 1][k] >= length[i][k + 1]) i++;
      else k++;
    return places;
  }

  // Which words of `other` differ from those of `best`.
  const differing = (other, best) => matching(other, best).map((place) => place < 0);

  function beamItem(beam, number, best) {
    const item = element("li");
    const button = element("button", "beam");
    button.type = "button";
    const text = phrase("span", "text");
    const differs = differing(beam.words, best.words);
    beam.words.forEach((word, i) => text.append(i ? " " : "", element("span", number && differs[i] ? "differs" : "", word)));
    if (!beam.words.length) text.append(textOf(beam));
    button.append(text, element("span", "p", [number ? `number ${number + 1}` : "chosen", `log p ${beam.log_prob === null ? "−∞" : beam.log_prob.toFixed(2).replace("-", "−")}`, `${beam.words.length} words`].join(" · ")));
    button.addEventListener("click", () => { stop(); showBeam(number); });
    item.append(button);
    return item;
  }

  // ------------------------------------------------------------ an image

  function showImage(index, focus) {
    stop();
    const image = images[index];
    state.image = index;
    at("stage").hidden = false;
    at("name").textContent = image.name;
    at("scores").textContent = data.sorts
      .filter(([key]) => key in image.scores)
      .map(([key, label]) => `${label} ${short(image.scores[key])}`)
      .join(" · ");
    at("photo").src = `data:image/jpeg;base64,${image.jpeg}`;
    at("photo").alt = `Image ${image.name}`;
    at("second").hidden = at("against").hidden = at("runname").hidden = !image.other;
    document.querySelector(".view").classList.toggle("pair", !!image.other);
    if (image.other) {
      [at("runname").textContent, at("othername").textContent] = data.runs;
      at("otherphoto").src = at("photo").src;
      at("otherphoto").alt = `Image ${image.name}, for ${data.runs[1]}`;
      at("otherframe").style.setProperty("--ratio", image.size[0] / image.size[1]);
    }
    at("boxchoice").hidden = !image.beams.some((beam) => beam.boxes && beam.boxes.length);
    at("frame").style.setProperty("--ratio", image.size[0] / image.size[1]);
    at("beams").replaceChildren(...image.beams.map((beam, i) => beamItem(beam, i, image.beams[0])));
    at("kept").hidden = image.beams.length < 2;
    at("references").replaceChildren(...image.references.map((text) => phrase("li", "", text)));
    at("people").hidden = !image.references.length;
    showBeam(0);
    for (const option of at("list").children) {
      const chosen = Number(option.dataset.index) === index;
      option.setAttribute("aria-selected", String(chosen));
      option.tabIndex = chosen ? 0 : -1;
      if (chosen) {
        reveal(option);
        if (focus) option.focus({ preventScroll: true });
      }
    }
    allowTurns();
    if (document.documentElement.dataset.ready) remember(); // not before the address of the page was read
  }

  function allowTurns() {
    const place = state.order.indexOf(state.image);
    at("previous").disabled = place <= 0;
    at("next").disabled = place < 0 || place >= state.order.length - 1;
  }

  // Scrolls the list alone: scrollIntoView would move the notebook around the page as well.
  function reveal(option) {
    const place = option.getBoundingClientRect();
    for (const box of [at("list").parentElement, at("list")]) {
      const view = box.getBoundingClientRect();
      if (place.top < view.top) box.scrollTop -= view.top - place.top;
      else if (place.bottom > view.bottom) box.scrollTop += place.bottom - view.bottom;
      if (place.left < view.left) box.scrollLeft -= view.left - place.left;
      else if (place.right > view.right) box.scrollLeft += place.right - view.right;
    }
  }

  function step(by, focus) {
    const place = state.order.indexOf(state.image) + by;
    if (place >= 0 && place < state.order.length) showImage(state.order[place], focus);
  }

  // ------------------------------------------------------------ the list

  const fold = (text) => text.normalize("NFKC").toLowerCase();
  const searched = images.map((image) =>
    fold([image.name, ...image.beams.map(textOf), ...(image.other ? [textOf(image.other)] : []), ...image.references].join("\n")));

  const marked = ({ beams: [best], other }) => best.wrong.length + (other?.wrong.length || 0);

  const SORTS = [
    ["given", "order given", (_, i) => i],
    ...data.sorts.map(([key, label]) => [key, label, (image) => image.scores[key] ?? null]),
    ["probability", "probability a word", (image) => geometricMean(image.beams[0].p)],
    ["least", "least probable word", ({ beams: [{ p }] }) => (p && p.length ? Math.min(...p) : null)],
    ["length", "words", (image) => image.beams[0].words.length],
    ...(data.marks ? [["wrong", "marked words", marked]] : []),
    ...(data.runs ? [["differ", "words that differ", ({ beams: [best], other }) => differing(best.words, other.words).filter(Boolean).length]] : []),
    ["name", "name", (image) => image.name],
  ];

  function geometricMean(p) {
    return p && p.length ? Math.exp(p.reduce((sum, value) => sum + Math.log(value || 0), 0) / p.length) : null;
  }

  function arrange() {
    const terms = fold(at("filter").value).split(/\s+/).filter(Boolean);
    const whole = terms.map((term) => new RegExp(`(?<![\\p{L}\\p{M}\\p{N}])${term.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}(?![\\p{L}\\p{M}\\p{N}])`, "u"));
    const holds = (i) => at("exact").checked ? whole.every((term) => term.test(searched[i])) : terms.every((term) => searched[i].includes(term));
    const fits = (i) => holds(i) && (!at("wrong").checked || marked(images[i]) > 0);
    const [key, , value] = SORTS[at("sort").selectedIndex];
    const values = images.map(value);
    const sign = state.highest ? -1 : 1;
    const compare = (a, b) => {
      if (values[a] === null || values[b] === null) return (values[a] === null) - (values[b] === null) || a - b;
      const order = key === "name" ? values[a].localeCompare(values[b], "en", { numeric: true }) : values[a] - values[b];
      return (key === "given" ? order : sign * order) || a - b;
    };
    state.order = images.map((_, i) => i).filter(fits).sort(compare);
    const options = new Map([...at("list").children].map((option) => [Number(option.dataset.index), option]));
    const seen = new Set(state.order);
    for (const [index, option] of options) option.hidden = !seen.has(index);
    at("list").append(...state.order.map((index) => options.get(index)));
    for (const [index, option] of options) {
      const text = key === "given" || key === "name" ? images[index].name
        : key === "length" ? `${values[index]} words` : key === "wrong" ? `${values[index]} marked` : key === "differ" ? `${values[index]} differ` : short(values[index]);
      option.lastChild.textContent = text;
    }
    const shown = state.order.length, all = `${images.length} image${images.length === 1 ? "" : "s"}`;
    at("count").textContent = shown === images.length ? all : `${shown} of ${all}`;
    at("none").hidden = shown > 0;
    at("direction").disabled = key === "given";
    at("direction").textContent = key === "name" ? (state.highest ? "Z to A" : "A to Z")
      : state.highest ? "Highest first" : "Lowest first";
    if (!shown) { stop(); at("stage").hidden = true; }
    else if (at("stage").hidden || !seen.has(state.image)) showImage(state.order[0]);
    else allowTurns();
  }

  function fillList() {
    at("list").append(...images.map((image, index) => {
      const option = element("li", "option");
      option.setAttribute("role", "option");
      option.dataset.index = index;
      const small = element("img");
      small.loading = "lazy";
      small.decoding = "async";
      small.alt = "";
      small.src = `data:image/jpeg;base64,${image.jpeg}`;
      option.append(small, phrase("span", "said", sentenceOf(image.beams[0])), phrase("span", "badge", image.name));
      return option;
    }));
    at("sort").append(...SORTS.map(([, label]) => element("option", "", label)));
  }

  // ------------------------------------------------------------ events

  function stop() {
    clearInterval(state.playing);
    state.playing = 0;
    at("play").textContent = "Play";
  }

  function play() {
    if (state.playing) return stop();
    const last = beamNow().words.length;
    pin(state.word >= last ? 1 : state.word + 1);
    at("play").textContent = "Pause";
    state.playing = setInterval(() => (state.word < beamNow().words.length ? pin(state.word + 1) : stop()), PACE);
  }

  // Keep a word: hovering shows others for a moment and comes back to it. 0 keeps none.
  function pin(word) {
    state.pinned = word;
    show(word);
    remember();
  }

  // The address names image and word, so that a link leads to them. In a notebook's frame it cannot be changed.
  function remember() {
    if (window.self !== window.top) return;
    history.replaceState(null, "", `#${encodeURIComponent(images[state.image].name)},${state.pinned}`);
  }

  function openAddress() {
    const [, name, word] = /^#(.*),(\d+)$/.exec(location.hash) || [];
    if (name === undefined) return;
    let wanted;
    try { wanted = decodeURIComponent(name); } catch { return; } // not an address of this page
    const index = images.findIndex((image) => image.name === wanted);
    if (index < 0) return;
    showImage(index);
    if (Number(word) <= beamNow().words.length) pin(Number(word));
  }

  // Words as lines of at most `width` pixels: [[{word, x, bold}]]; the word number `now` (from 1) is bold.
  function linesOf(context, words, width, now) {
    const lines = [[]];
    let end = 3;
    words.forEach((word, i) => {
      const bold = i + 1 === now;
      context.font = `${bold ? "bold " : ""}18px sans-serif`;
      const size = context.measureText(word).width;
      if (lines.at(-1).length && end + 7 + size > width - 10) { lines.push([]); end = 3; }
      lines.at(-1).push({ word, x: end + 7, bold });
      end += 7 + size;
    });
    return lines;
  }

  // What is shown as a PNG file: the image with its map, boxes and caption, of two runs side by side.
  function saveImage() {
    const { name, other, size: [width, height] } = images[state.image];
    const scale = Math.max(1, 720 / Math.max(width, height));
    const canvas = element("canvas"), context = canvas.getContext("2d");
    const [across, down, line, gap] = [Math.round(width * scale), Math.round(height * scale), 26, 16];
    const beam = beamNow(), boxes = shownBoxes(beam, state.word);
    const sides = [{ photo: at("photo"), map: at("map"), words: beam.words, now: state.word, boxes }];
    if (other) {
      const now = placeInOther(beam, state.word) + 1;
      sides.push({ photo: at("otherphoto"), map: at("othermap"), words: other.words, now, boxes: now ? boxes : [] });
    }
    for (const side of sides) side.lines = linesOf(context, side.words, across, side.now);
    const top = other ? line : 0; // room for the names of the runs
    canvas.width = sides.length * (across + gap) - gap;
    canvas.height = top + down + Math.max(...sides.map(({ lines }) => lines.length)) * line + 12;
    context.fillStyle = "#ffffff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    sides.forEach(({ photo, map, lines, boxes }, i) => {
      context.setTransform(1, 0, 0, 1, i * (across + gap), top);
      const look = getComputedStyle(photo);
      context.filter = look.filter;
      context.globalAlpha = look.opacity;
      context.drawImage(photo, 0, 0, across, down);
      context.filter = "none";
      context.globalAlpha = Number(map.style.opacity);
      if (context.globalAlpha) context.drawImage(map, 0, 0, across, down);
      context.globalAlpha = 1;
      for (const [left, upper, right, lower] of boxes)
        for (const [style, size] of [["#ffffff", 6], ["#0072b2", 2]])
          Object.assign(context, { strokeStyle: style, lineWidth: size }).strokeRect(left * across, upper * down, (right - left) * across, (lower - upper) * down);
      context.fillStyle = "#1a1a1a";
      context.font = "bold 16px sans-serif";
      if (other) context.fillText(data.runs[i], 0, -8, across);
      lines.forEach((words, row) => words.forEach(({ word, x, bold }) => {
        context.font = `${bold ? "bold " : ""}18px sans-serif`;
        context.fillText(word, x, down + line * (row + 1) - 4);
      }));
    });
    const link = element("a");
    link.download = `${name.replace(/[^\p{L}\p{N}._-]+/gu, "_")}_${state.word}.png`;
    link.href = canvas.toDataURL("image/png");
    link.click();
  }

  const wordAt = (node) => Number(node?.closest?.(".word")?.dataset.word || 0);

  function choose(word) {
    if (word && word !== state.word) { stop(); show(word); }
  }

  let pointer = "";
  at("words").addEventListener("pointerover", (event) => {
    const place = `${event.clientX},${event.clientY}`;
    if (event.pointerType !== "touch" && place !== pointer) choose(wordAt(event.target)); // not where the page moved
    pointer = place;
  });
  for (const kind of ["pointerdown", "pointermove"]) // a finger that slides from word to word
    at("words").addEventListener(kind, (event) => {
      if (event.pointerType === "touch") choose(wordAt(document.elementFromPoint(event.clientX, event.clientY)));
    });
  at("words").addEventListener("focusin", (event) => choose(wordAt(event.target)));
  at("words").addEventListener("click", (event) => { // also Enter and the space bar
    const word = wordAt(event.target);
    if (word) { stop(); pin(state.pinned === word ? 0 : word); }
  });
  const comeBack = () => { if (!state.playing && state.word !== state.pinned) show(state.pinned); };
  at("words").addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") comeBack(); });
  at("words").addEventListener("focusout", (event) => { if (!at("words").contains(event.relatedTarget)) comeBack(); });
  at("words").addEventListener("keydown", (event) => {
    const buttons = [...at("words").children];
    const forward = getComputedStyle(at("words")).direction === "rtl" ? -1 : 1;
    const by = { ArrowRight: forward, ArrowLeft: -forward }[event.key];
    const to = event.key === "Home" ? 0 : event.key === "End" ? buttons.length - 1 : by && buttons.indexOf(event.target) + by;
    if (to === undefined || !buttons[to]) return;
    event.preventDefault();
    buttons[to].focus();
  });
  at("stage").addEventListener("keydown", (event) => {
    if (event.key === "Escape") { stop(); pin(0); }
  });

  at("slider").addEventListener("input", () => { stop(); pin(Number(at("slider").value)); });
  at("play").addEventListener("click", play);
  for (const id of ["strength", "threshold"]) at(id).addEventListener("input", () => show(state.word));
  at("mode").addEventListener("change", () => show(state.word));
  at("save").addEventListener("click", saveImage);
  at("save").hidden = window.self !== window.top; // a notebook's frame may not save files
  at("withboxes").addEventListener("change", () => show(state.word));
  for (const id of ["cells", "onescale"])
    at(id).addEventListener("change", () => { paintSmall(); show(state.word); });

  at("frame").addEventListener("pointermove", (event) => {
    const maps = mapsOf(beamNow());
    const view = at("frame").getBoundingClientRect();
    const x = (event.clientX - view.left) / view.width, y = (event.clientY - view.top) / view.height;
    at("here").hidden = !(state.word && maps);
    if (at("here").hidden) return;
    const [left, top, right, bottom] = maps.box;
    const cell = (place, first, last, count) => Math.min(Math.max(Math.floor(((place - first) / (last - first)) * count), 0), count - 1);
    const value = maps.values[state.word - 1][cell(y, top, bottom, maps.rows) * maps.cols + cell(x, left, right, maps.cols)];
    at("here").textContent = `here ${times(value)}`;
  });
  at("frame").addEventListener("pointerleave", () => { at("here").hidden = true; });

  at("list").addEventListener("click", (event) => {
    const option = event.target.closest(".option");
    if (option) showImage(Number(option.dataset.index), true);
  });
  at("list").addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, PageDown: 5, PageUp: -5 }[event.key];
    const last = state.order.length - 1;
    const to = event.key === "Home" ? 0 : event.key === "End" ? last
      : by && Math.min(Math.max(state.order.indexOf(state.image) + by, 0), last);
    if (to === undefined) return;
    event.preventDefault();
    showImage(state.order[to], true);
  });
  at("previous").addEventListener("click", () => step(-1));
  at("next").addEventListener("click", () => step(1));
  for (const id of ["filter", "exact", "wrong"]) at(id).addEventListener("input", arrange);
  const arrangeAnew = (highest) => {
    state.highest = highest;
    arrange();
    if (state.order.length) showImage(state.order[0]); // after sorting, the first image is shown
  };
  at("sort").addEventListener("change", () => arrangeAnew(SORTS[at("sort").selectedIndex][0] !== "name"));
  at("direction").addEventListener("click", () => arrangeAnew(!state.highest));

  at("wrongonly").hidden = !data.marks;
  at("strength").value = data.strength;
  for (const id of ["frame", "otherframe"]) at(id).classList.toggle("opaque", data.strength < 100); // one's own colors, which hold no opacity
  fillList();
  paint(at("colors"), Float32Array.from({ length: 256 }, (_, i) => i / 256), 256, 1, 1);
  arrange();
  openAddress();
  window.addEventListener("hashchange", openAddress);
  window.addEventListener("resize", () => { if (!at("stage").hidden) reserve(); });
  document.documentElement.dataset.ready = "true";
})();
