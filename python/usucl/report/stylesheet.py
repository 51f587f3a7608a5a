"""The look of the report's page: on a screen, on a phone and on paper."""

STYLESHEET = """
:root { --ink: #1f2a37; --muted: #5f6b78; --rule: #d8dee5; --faint: #edf0f3; --ground: #f6f8fa;
        --good: #0f766e; --bad: #b4325a;
        --anchor: #1f2a37; --positive: #0f766e; --intra: #b34f17; --cross: #4452a8;
        --paper: #fff; --shade: rgb(31 42 55 / 0.25); --alert: #fcf2f5; --mild: #fdf8f0;
        --badge: #fdf3e4; --mild-ink: #8a5a12; --mild-rule: #b98a4a; color-scheme: light; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #dde3ea; --muted: #9ba7b4; --rule: #3a4653; --faint: #28313b; --ground: #1c242d;
          --good: #4fc3b5; --bad: #f08cab;
          --anchor: #dde3ea; --positive: #4fc3b5; --intra: #ef9a5f; --cross: #a3aef5;
          --paper: #12181f; --shade: rgb(0 0 0 / 0.6); --alert: #2e1c25; --mild: #2a2318;
          --badge: #3a2d15; --mild-ink: #e5b566; --mild-rule: #b98a4a; color-scheme: dark; }
  /* Drawings are inked on white: light on the ground of the page instead, in the same hues. */
  .drawing:not(.mined) { filter: invert(1) hue-rotate(180deg); mix-blend-mode: screen; }
}
* { box-sizing: border-box; }
html { scroll-padding-top: 12px; -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 48px 24px 72px; max-width: 1008px; color: var(--ink);
       background: var(--paper);
       font: 15px/1.55 system-ui, "Segoe UI", "Helvetica Neue", "Liberation Sans", sans-serif; }
h1, h2, h3, p, li, dt, dd, bdi, summary, figcaption { overflow-wrap: anywhere; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 20px; margin: 52px 0 10px; padding-top: 14px; border-top: 1px solid var(--rule); }
h3 { font-size: 15px; margin: 28px 0 4px; }
p, .terms, .brief, .alert ul { max-width: 704px; }
p { margin: 0 0 12px; }
a { color: var(--cross); text-underline-offset: 2px; }
:focus-visible { outline: 2px solid var(--cross); outline-offset: 2px; }
main:focus { outline: none; }
.unseen, .skip:not(:focus) { position: absolute; width: 1px; height: 1px; overflow: hidden;
  clip-path: inset(50%); white-space: nowrap; }
.skip { display: inline-block; margin-bottom: 8px; }
.lead { font-size: 17px; margin-top: 16px; }
.note, .byline { color: var(--muted); font-size: 13px; }
.byline { max-width: none; }
.badge { display: inline-block; padding: 2px 10px; border-radius: 999px;
         background: var(--badge); color: var(--mild-ink); font-size: 13px; font-weight: 600; }
.alert { border-left: 4px solid var(--bad); background: var(--alert); border-radius: 0 8px 8px 0;
         padding: 12px 18px 2px; margin: 18px 0; }
.alert h2 { border: 0; margin: 0 0 6px; padding: 0; font-size: 17px; color: var(--bad); }
.alert ul, .brief { margin: 0 0 12px; padding-left: 20px; }
.alert.mild { border-color: var(--mild-rule); background: var(--mild); }
.alert.mild h2 { color: var(--mild-ink); }
.contents { font-size: 13.5px; margin: 18px 0 14px; }
.contents ol { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 0;
               padding: 0; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 3px 18px; margin: 10px 0;
         font-size: 13.5px; }
.facts dt { color: var(--muted); }
.facts dd { margin: 0; min-width: 0; }
.terms { font-size: 13px; margin: 8px 0 16px; }
.terms dt { font-weight: 600; margin-top: 6px; }
.terms dd { margin: 0; color: var(--muted); }
.names { font-size: 13px; columns: 300px 3; column-gap: 28px; margin: 6px 0 14px; padding: 0;
         list-style: none; }
.names li { break-inside: avoid; padding: 1px 0 1px 12px; text-indent: -12px; }
.names small { color: var(--muted); }
img { display: block; max-width: 100%; height: auto; }
.drawing { width: 100%; margin: 20px 0 10px; }
.narrow.drawing { display: none; }
.mined.drawing { max-width: 560px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(214px, 1fr)); gap: 14px;
         margin: 20px 0 12px; }
.cards:has(> :nth-child(5)) { grid-template-columns: repeat(auto-fit, minmax(280px, 1fr)); }
.card { background: var(--ground); border-radius: 8px; padding: 13px 16px 12px;
        display: grid; grid-template-rows: subgrid; grid-row: span 4; row-gap: 0; }
.card .unit { color: var(--muted); font-size: 12.5px; line-height: 1.4; }
.card h2 { border: 0; margin: 0 0 2px; padding: 0; font-size: 15px; line-height: 1.35; }
.card b { display: block; font-size: 30px; line-height: 1.3; font-weight: 600;
          font-variant-numeric: tabular-nums; }
.card small { white-space: nowrap; }
.card ul { list-style: none; margin: 6px 0 0; padding: 0; font-size: 13px; line-height: 1.45; }
.card li { padding: 5px 0 3px; border-top: 1px solid var(--rule); }
small { color: var(--muted); font-size: 12.5px; font-weight: 400; }
.better { color: var(--good); } .worse { color: var(--bad); }
.open, .hint { color: var(--muted); }
.better, .worse { font-weight: 600; }
.better small, .worse small, td small { font-weight: 400; }
.wide { overflow-x: auto; margin: 10px 0 6px; -webkit-overflow-scrolling: touch; }
.hint { display: none; font-size: 12.5px; margin: 10px 0 -4px; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: 13.5px;
        font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--muted); padding: 6px 12px 6px 0;
     border-bottom: 1px solid var(--rule); vertical-align: bottom; }
td { padding: 7px 12px 7px 0; border-bottom: 1px solid var(--faint); vertical-align: top;
     overflow-wrap: anywhere; }
td.number, td.number small { white-space: nowrap; overflow-wrap: normal; }
tbody th { color: inherit; font-weight: 400; min-width: 110px; padding: 7px 12px 7px 0;
           border-bottom-color: var(--faint); vertical-align: top; overflow-wrap: anywhere; }
tr > :first-child { position: sticky; left: 0; background: var(--paper); }
td small { display: block; }
pre { background: var(--ground); border-radius: 8px; padding: 14px 16px; font-size: 12.5px;
      line-height: 1.5; white-space: pre-wrap; overflow-wrap: anywhere; margin: 10px 0 14px; }
pre.columns { columns: 2; column-gap: 32px; font-size: 12px; }
summary { cursor: pointer; color: var(--cross); font-size: 13.5px; }
.sheet { margin: 16px 0; }
.row { display: grid; grid-template-columns: repeat(8, 1fr); gap: 0 10px; padding: 12px 0;
       border-top: 1px solid var(--faint); break-inside: avoid; }
.row.plain { grid-template-columns: repeat(5, 1fr); }
.group { min-width: 0; }
.intra, .cross { grid-column: span 3; }
.kind { margin: 0 0 6px; padding-bottom: 3px; font-size: 12.5px; font-weight: 700;
        line-height: 1.3; border-bottom: 2px solid; }
.anchor .kind { color: var(--anchor); } .positive .kind { color: var(--positive); }
.intra .kind { color: var(--intra); } .cross .kind { color: var(--cross); }
.tiles { display: grid; grid-template-columns: repeat(3, 1fr); gap: 10px; }
.tiles.four { grid-template-columns: repeat(4, 1fr); margin: 14px 0; }
.tiles.six { grid-template-columns: repeat(6, 1fr); margin: 10px 0; }
.tiles.six p { margin: 0; font-size: 12.5px; line-height: 1.35; }
.anchor .tiles, .positive .tiles { grid-template-columns: 1fr; }
figure { margin: 0; min-width: 0; }
figure img { width: 100%; border-radius: 3px; }
figure.above img { outline: 3px solid var(--bad); outline-offset: -1px; }
figcaption { font-size: 11.5px; line-height: 1.4; padding-top: 4px; color: var(--muted);
             font-variant-numeric: tabular-nums; }
figcaption b { color: var(--ink); }
@media screen and (max-width: 720px) {
  body { padding: 28px 20px 48px; }
  h1 { font-size: 25px; }
  .facts { grid-template-columns: 1fr; gap: 0; } .facts dd { margin-bottom: 6px; }
  .wide table { min-width: 640px; } .wide.small table { min-width: 0; }
  .hint { display: block; }
  .wide { box-shadow: inset -14px 0 12px -12px var(--shade); }
  .wide tr > :first-child { max-width: 42vw; padding-left: 2px;
    border-right: 1px solid var(--rule); }
  .wide tr > :nth-child(2) { padding-left: 12px; }
  .wide.small { box-shadow: none; }
  .wide.small td:last-child:not(.number) { min-width: 8.5em; }
  .wide.small tbody th { min-width: 84px; }
  .wide.small tr > * { padding-right: 8px; }
  .wide.small tr > :nth-child(2) { padding-left: 0; }
  .wide.small tr > :first-child { border-right: 0; }
  .wide.small .number, .wide.small .number small { white-space: normal; }
  pre { white-space: pre; overflow-x: auto; }
  pre:not(.columns) { box-shadow: inset -14px 0 12px -12px var(--shade); }
  pre.columns { columns: 1; }
  .wide.drawing { display: none; } .narrow.drawing { display: block; max-width: 480px; }
  .row, .row.plain { grid-template-columns: 1fr 1fr 1fr; gap: 12px 10px; }
  .intra, .cross { grid-column: 1 / -1; }
  .tiles.four { grid-template-columns: 1fr 1fr; }
  .tiles.six { grid-template-columns: repeat(5, 1fr); gap: 6px; }
  .tiles.six p { grid-column: 1 / -1; }
}
@page { margin: 15mm; }
@media print {
  body { padding: 0; max-width: none; font-size: 10pt; }
  h1, h2, h3, dt, .kind, summary { break-after: avoid; }
  p { orphans: 3; widows: 3; }
  h2 { margin-top: 26px; }
  .skip { display: none; }
  .drawing { max-height: 262mm; object-fit: contain; }  /* what is higher than a page fits one */
  img, tr, li, dd, pre, .card, .alert, figure { break-inside: avoid; }
  pre.columns { break-inside: auto; }
  tbody tr:first-child, tr:nth-child(2) { break-before: avoid; }
  table:not(:has(tbody tr:nth-child(7))) { break-inside: avoid; }
  table { font-size: 8.5pt; } td small { font-size: 7.5pt; }
  tr > :first-child { position: static; }
  .card, pre { border: 1px solid var(--rule); }
  p:has(+ pre, + .wide, + .hint, + .drawing) { break-after: avoid; }
  .cards { grid-template-columns: repeat(3, 1fr); gap: 10px; }
  .cards:has(> :nth-child(4)) { grid-template-columns: 1fr 1fr; }
  details::details-content { content-visibility: visible; display: block; }
  summary { list-style: none; color: var(--ink); font-weight: 600; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
"""
