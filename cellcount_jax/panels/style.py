"""How a page looks, in CSS: on light and dark screens, narrow ones, and paper."""

from __future__ import annotations

from cellcount_jax.panels.charts import COUNTED, REJECTED

STYLE = f"""
:root {{ color-scheme: light dark; --ink: #1c1c1c; --faint: #5f5f5f; --paper: #fff;
  --line: #d4d4d4; --band: #f5f5f3; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e8e8e6; --faint: #a9a9a6;
  --paper: #171717; --line: #444; --band: #222; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }}
main {{ max-width: 1100px; margin: 0 auto; padding: 16px 16px 48px; }}
h1 {{ font-size: 1.25rem; margin: 12px 0 0; font-weight: 600; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.15rem; margin: 40px 0 4px; padding-top: 12px;
  border-top: 1px solid var(--line); }}
h3 {{ font-size: 1rem; margin: 24px 0 0; }}
p {{ margin: 4px 0 12px; max-width: 75ch; }}
.count {{ font-size: 1.5rem; margin: 0; }}
.count b {{ font-size: 3.5rem; line-height: 1.15; font-variant-numeric: tabular-nums; }}
.faint, figcaption {{ color: var(--faint); }}
figcaption {{ font-size: .875rem; line-height: 1.4; margin-top: 6px; overflow-wrap: anywhere; }}
.row {{ display: flex; flex-wrap: wrap; gap: 20px 16px; align-items: flex-start;
  margin-top: 14px; }}
figure {{ margin: 0; width: fit-content; max-width: 100%; min-width: 220px;
  break-inside: avoid; }}
figure.crop {{ min-width: 0; }}
/* A caption is as wide as its picture. */
figcaption {{ width: 0; min-width: 100%; }}
svg {{ display: block; max-width: 100%; height: auto; }}
.crop svg + svg {{ margin-top: 4px; }}
svg text {{ font-size: 13px; fill: currentColor; }}
.pixels {{ image-rendering: pixelated; }}
.grid {{ stroke: var(--line); fill: none; }}
.axis {{ stroke: currentColor; fill: none; }}
.line {{ stroke: currentColor; stroke-width: 2; stroke-dasharray: 6 4; fill: none; }}
.rim, .counted, .beside, .rejected {{ fill: none; stroke-width: 2; }}
.rim {{ stroke: #000; stroke-opacity: .6; stroke-width: 4; }}
.counted, .beside, .other {{ stroke: {COUNTED}; }}
.beside {{ stroke-dasharray: 4 3; }}
.spot {{ fill: none; stroke: #fff; stroke-width: 1.5; stroke-dasharray: 2 3; }}
.beyond {{ fill: #7a7a7a; }}
.rejected {{ stroke: {REJECTED}; }}
.dot {{ stroke-linecap: round; stroke-width: 4; }}
.dot.rim {{ stroke-width: 6; }}
.frame {{ fill: none; stroke: #fff; stroke-width: 1.5; paint-order: stroke;
  filter: drop-shadow(0 0 1px #000); }}
.bar {{ fill: #fff; stroke: #000; stroke-width: 1; }}
svg .on {{ fill: #fff; stroke: #000; stroke-width: 3; paint-order: stroke; font-weight: 600; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: left; padding: 4px 16px 4px 8px; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }}
tr > th:first-child {{ font-weight: 600; white-space: nowrap; }}
td.n, th.n {{ text-align: right; white-space: nowrap; }}
.wide {{ overflow-x: auto; }}
.regions tbody tr:nth-child(even) {{ background: var(--band); }}
#rings {{ position: absolute; opacity: 0; }}
.toggle {{ position: sticky; top: 0; z-index: 1; display: block; max-width: 1100px;
  margin: 0 auto; padding: 6px 16px; background: var(--paper); cursor: pointer; }}
.toggle::before {{ content: "\\2610\\a0"; }}
#rings:checked ~ .toggle::before {{ content: "\\2611\\a0"; }}
#rings:focus-visible ~ .toggle {{ outline: 2px solid currentColor; }}
#rings:not(:checked) ~ main .rings {{ display: none; }}
@media (max-width: 600px) {{ .row {{ gap: 16px 10px; }}
  .small figure {{ width: calc(50% - 5px); min-width: 0; }}
  .crops figure {{ width: calc(33.3% - 7px); }} .crops figcaption {{ font-size: .75rem; }} }}
@media print {{ .toggle {{ display: none; }} main {{ max-width: none; padding: 0; }}
  h2 {{ break-after: avoid; }} .wide {{ overflow: visible; }} }}
"""
