// What `report check` asks the page: each question has a list of what is wrong. The browser calls this
// function; it is not part of the page. `scripts`: whether the page's own script may run.
(scripts) => {
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const isShown = (element) => element.getClientRects().length > 0;
  const findings = [];
  const ask = (name, wrong) => findings.push({ name, wrong: wrong.slice(0, 8) });
  const name = (element) => element.id || element.textContent.trim().slice(0, 40);

  ask("the page does not scroll to the side", (() => {
    const { scrollWidth, clientWidth } = document.documentElement;
    return scrollWidth > clientWidth ? [`${scrollWidth} px of ${clientWidth} px`] : [];
  })());

  const levels = all("h1, h2, h3, h4, h5, h6").map((heading) => [Number(heading.tagName[1]), name(heading)]);
  ask("headings begin with h1 and skip no level", levels.filter(([level], at) =>
    at === 0 ? level !== 1 : level > levels[at - 1][0] + 1).map(([, words]) => words));

  ask("every table has headers with a scope", all("table").filter((table) =>
    !table.tHead || all("th", table).some((cell) => !cell.scope)).map(name));

  ask("a section for pictures has one, or says which target makes it", ["exchange", "bench", "faults"].filter(
    (id) => !document.querySelector(`#${id} figure, #${id} .note`)));

  ask("every picture is shown once, with shapes, words and a name", all("figure").flatMap((figure) => {
    const shown = all("svg", figure).filter(isShown);
    if (shown.length !== 1) return [`${name(figure)}: ${shown.length} pictures are shown`];
    const [svg] = shown;
    const box = svg.getBoundingClientRect();
    const wrong = [];
    if (box.width < 200 || box.height < 40) wrong.push(`${box.width} × ${box.height} px`);
    if (all("rect, circle, line, polyline, path, polygon", svg).length < 3) wrong.push("no shapes");
    if (all("text", svg).length < 2) wrong.push("no words");
    if (!svg.getAttribute("aria-label")) wrong.push("no name");
    return wrong.map((what) => `${name(figure)}: ${what}`);
  }));

  ask("no word of a picture is cut, none covers another", all("figure svg").filter(isShown).flatMap((svg) => {
    const { width, height } = svg.viewBox.baseVal;
    const words = all("text", svg).map((text) => [text, text.getBoundingClientRect(), text.getBBox()]);
    const cut = words.filter(([text, , box]) => !text.getAttribute("transform")
      && (box.x < -1 || box.y < -1 || box.x + box.width > width + 1 || box.y + box.height > height + 1));
    const apart = (a, b) => a.right <= b.left + 1 || b.right <= a.left + 1
      || a.bottom <= b.top + 2 || b.bottom <= a.top + 2;
    const covered = words.filter(([, box], at) =>
      words.slice(at + 1).some(([, other]) => !apart(box, other)));
    const say = (what) => ([text]) => `${svg.getAttribute("aria-label")}: ${text.textContent.trim()} ${what}`;
    return [...cut.map(say("is cut")), ...covered.map(say("covers other words"))];
  }));

  const luminance = (colour) => {
    const parts = colour.match(/[\d.]+/g).slice(0, 3).map((part) => part / 255);
    const linear = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/^rgba\(.*, 0\)$/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  ask("words have a contrast of 4.5 to what is behind them", (() => {
    const worst = new Map();
    for (const element of all("body *").filter(isShown)) {
      const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
      if (!own || element.closest("defs")) continue;
      const style = getComputedStyle(element);
      const of = element.closest("svg") ? style.fill : style.color;
      if (!/^rgb/.test(of)) continue;
      const [a, b] = [luminance(of), luminance(ground(element))].sort((x, y) => y - x);
      const contrast = (a + 0.05) / (b + 0.05);
      if (contrast < 4.5) worst.set(`${of} on ${ground(element)}`, `${contrast.toFixed(1)}: ${name(element)}`);
    }
    return [...worst].map(([colours, what]) => `${colours} ${what}`);
  })());

  const forms = all("form.filter");
  ask("there is a form for each table with filters", forms
    .filter((form) => !document.getElementById(form.dataset.for)).map((form) => form.dataset.for));
  const rowsOf = (form) => [...document.getElementById(form.dataset.for).tBodies[0].rows];
  if (scripts) {
    ask("the filters hide what does not match and show it again", forms.flatMap((form) => {
      const rows = rowsOf(form);
      const count = () => rows.filter(isShown).length;
      const wrong = [];
      const expect = (what, shown, expected) => {
        const said = form.querySelector("output").value;
        if (shown !== expected || said !== `${expected} of ${rows.length} rows`) {
          wrong.push(`${form.dataset.for}: ${what}: ${shown} rows, ${expected} expected; "${said}"`);
        }
      };
      const set = (field, value) => {
        form.elements[field].value = value;
        form.elements[field].dispatchEvent(new Event("input", { bubbles: true }));
      };
      if (!isShown(form)) wrong.push(`${form.dataset.for}: the form is hidden`);
      expect("no filter", count(), rows.length);
      const word = rows[rows.length - 1].cells[0].textContent.trim().split(/\s+/).pop();
      const has = (row, text) => row.textContent.toLowerCase().includes(text.toLowerCase());
      set("text", word);
      expect(`text ${word}`, count(), rows.filter((row) => has(row, word)).length);
      set("text", "no row has this");
      expect("text of no row", count(), 0);
      set("text", "");
      for (const outcome of ["failed", "skipped", "passed"]) {
        set("outcome", outcome);
        const cells = (row) => all(`.mark.${outcome}`, row).length > 0;
        const expected = rows.filter((row) => row.dataset.cells.includes(`:${outcome}`));
        expect(outcome, count(), expected.length);
        if (expected.some((row) => !cells(row))) wrong.push(`${form.dataset.for}: ${outcome} without a sign`);
      }
      set("outcome", "");
      if (form.elements.mode) {
        for (const { value } of form.elements.mode.options) {
          set("mode", value);
          const columns = all("th[data-mode]", document.getElementById(form.dataset.for));
          const other = columns.filter((cell) => isShown(cell) && value && cell.dataset.mode !== value);
          if (other.length) wrong.push(`${form.dataset.for}: ${value} shows columns of another mode`);
          if (!count()) wrong.push(`${form.dataset.for}: ${value} shows no row`);
        }
        set("mode", "");
      }
      expect("no filter again", count(), rows.length);
      return wrong;
    }));
  } else {
    ask("without a script every row is shown and no form", forms.flatMap((form) => [
      ...(isShown(form) ? [`${form.dataset.for}: the form is shown`] : []),
      ...(rowsOf(form).every(isShown) ? [] : [`${form.dataset.for}: rows are hidden`]),
    ]));
  }

  const links = all("a[href]").map((link) => link.getAttribute("href"));
  ask("every link inside the page leads somewhere", links.filter((link) =>
    link.startsWith("#") && !document.getElementById(link.slice(1))));
  return { findings, links: links.filter((link) => !link.startsWith("#")) };
}
