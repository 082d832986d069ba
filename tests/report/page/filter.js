// Hides the rows that do not match a form. Without a script the forms are hidden and all rows are shown.
for (const form of document.querySelectorAll("form.filter")) {
  const table = document.getElementById(form.dataset.for);
  const rows = [...table.tBodies[0].rows];
  const columns = table.querySelectorAll("[data-mode]");
  const update = () => {
    const value = (name) => (form.elements[name] ? form.elements[name].value : "");
    const mode = value("mode"), outcome = value("outcome"), text = value("text").toLowerCase();
    const fits = (cell) => {
      const [of, what] = cell.split(":");
      return (!mode || of === mode) && (!outcome || what === outcome);
    };
    let shown = 0;
    for (const row of rows) {
      row.hidden = !row.dataset.cells.trim().split(" ").some(fits)
        || !row.textContent.toLowerCase().includes(text);
      shown += row.hidden ? 0 : 1;
    }
    for (const cell of columns) cell.hidden = mode !== "" && cell.dataset.mode !== mode;
    form.querySelector("output").value = `${shown} of ${rows.length} rows`;
  };
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  update();
}
