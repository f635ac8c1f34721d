"use strict";
// Tables: a heading's button sorts by its column, numbers by their value, and again the other way around.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th button").forEach((button, column) => {
    button.addEventListener("click", () => {
      const heading = button.parentElement;
      const down = heading.getAttribute("aria-sort") !== "descending";
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const numeric = [...body.rows].every((row) => key(row) === "" || !isNaN(Number(key(row))));
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === "" || y === "") return (x === "") - (y === "");  // empty cells stay last
        const order = numeric ? Number(x) - Number(y) : x.localeCompare(y);
        return down ? -order : order;
      });
      table.querySelectorAll("thead th").forEach((th) => th.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      body.append(...rows);
    });
  });
}

// Charts: drawn as SVG, in the colors of the page, and again when the reader changes between light and dark.
const dark = matchMedia("(prefers-color-scheme: dark)");
function draw() {
  const style = getComputedStyle(document.documentElement);
  const [ink, soft, line] = ["--ink", "--soft", "--line"].map((name) => style.getPropertyValue(name).trim());
  const font = getComputedStyle(document.body).fontFamily;
  const config = {
    background: "transparent", font, view: { stroke: "transparent" },
    axis: { labelColor: soft, titleColor: ink, gridColor: line, domainColor: line, tickColor: line, titleFontWeight: 500 },
    legend: { labelColor: ink, titleColor: ink, orient: "bottom", columns: 2, labelLimit: 220, symbolLimit: 40, symbolOpacity: 1 },
    title: { color: ink }, rule: { color: ink },
    range: {
      category: dark.matches
        ? ["#8fb2ff", "#ffb26b", "#6fd6a3", "#f08ca0", "#c8a6ff", "#d9c07a", "#7fd3e6", "#e59bd8", "#b6bcc8", "#a7d36b", "#5f86e0", "#d98545", "#45ad79", "#cf5f78", "#9d75e0", "#b39a4d", "#4fa9bd", "#bf6fb0"]
        : ["#2f5fd0", "#c2570c", "#14784a", "#b4233f", "#6d3fc4", "#8a6d0b", "#0b7285", "#a13a8f", "#5a6475", "#4d7c0f", "#7f9fe6", "#e08a4a", "#55a982", "#d0657d", "#9b7adb", "#b59a3f", "#4a9db0", "#c274b4"],
    },
  };
  const pending = [...document.querySelectorAll(".chart")].map((place) => {
    const spec = JSON.parse(document.getElementById(place.dataset.spec).textContent);
    return vegaEmbed(place, spec, { renderer: "svg", actions: false, config, tooltip: { theme: "custom" } });
  });
  Promise.all(pending).then(() => { document.body.dataset.drawn = "true"; });
}
draw();
dark.addEventListener("change", draw);

// Recipes: the fields in which two runs differ.
const recipes = document.getElementById("recipes");
if (recipes) {
  const known = JSON.parse(recipes.textContent);
  const [left, right] = document.querySelectorAll("#compare select");
  const body = document.querySelector("#compare tbody");
  const compare = () => {
    const [a, b] = [known[left.value], known[right.value]];
    const names = [...new Set([...Object.keys(a), ...Object.keys(b)])];
    const rows = names.filter((name) => left.value === right.value || JSON.stringify(a[name]) !== JSON.stringify(b[name]));
    body.replaceChildren(...rows.map((name) => {
      const row = document.createElement("tr");
      for (const text of [name, JSON.stringify(a[name]) ?? "", JSON.stringify(b[name]) ?? ""]) {
        const cell = document.createElement("td");
        cell.textContent = text;
        cell.className = "text";
        row.append(cell);
      }
      return row;
    }));
  };
  left.addEventListener("change", compare);
  right.addEventListener("change", compare);
  compare();
}
