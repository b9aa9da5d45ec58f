// Draws one dashboard from its JSON and from real answers of Prometheus, with the components that Grafana
// publishes. What surrounds them in Grafana (layout, variables, the state timeline) is not published and is
// only sketched here.
import "@fontsource/inter/400.css";
import "@fontsource/inter/500.css";
import { Component, useLayoutEffect } from "react";
import { createRoot } from "react-dom/client";
import { lastValueFrom } from "rxjs";

// Required, not imported: in Grafana's modules for `import` esbuild mistakes the default exports of older packages.
const {
  applyFieldOverrides,
  createTheme,
  dateTime,
  FieldType,
  getFieldDisplayName,
  getFieldDisplayValues,
  identityOverrideProcessor,
  Registry,
  standardTransformers,
  standardTransformersRegistry,
  toDataFrame,
  transformDataFrame,
} = require("@grafana/data");
const { BarGauge, BigValue, GlobalStyles, PanelChrome, Table, ThemeContext, TimeSeries } = require("@grafana/ui");

const { dashboard, answers, annotations, start, end, step, chosen } = window.DRAWING;
const theme = createTheme({ colors: { mode: "dark" } });
const timeRange = { from: dateTime(1000 * start), to: dateTime(1000 * end) };
timeRange.raw = { from: timeRange.from, to: timeRange.to };
const narrow = window.innerWidth < 769; // as in Grafana: below that, one panel a row

// -- from answers to frames ------------------------------------------------------------------------

// What is not a number is a gap, as in Grafana.
const numbers = (values) => values.map((value) => (Number.isFinite(Number(value)) ? Number(value) : null));
const legendOf = (format, labels) => format.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, name) => labels[name] ?? "");

function frames(panel) {
  return panel.targets.flatMap((target) => {
    const answer = answers[`${panel.id}/${target.refId}`];
    return target.format === "table" ? asTable(panel, target, answer) : answer.map((one) => asSeries(target, one));
  });
}

function asSeries(target, { metric, value, values }) {
  const points = values ?? [value];
  const named = target.legendFormat && target.legendFormat !== "__auto";
  return toDataFrame({
    refId: target.refId,
    fields: [
      {
        name: "Time",
        type: FieldType.time,
        values: points.map(([at]) => Math.round(1000 * at)),
        config: values ? { interval: 1000 * step } : {},
      },
      {
        name: "Value",
        type: FieldType.number,
        labels: metric,
        values: numbers(points.map(([, text]) => text)),
        config: named ? { displayNameFromDS: legendOf(target.legendFormat, metric) } : {},
      },
    ],
  });
}

function asTable(panel, target, answer) {
  if (!answer.length) {
    return [];
  }
  const labels = [...new Set(answer.flatMap(({ metric }) => Object.keys(metric)))].sort();
  const column = (name) => ({
    name,
    type: FieldType.string,
    values: answer.map(({ metric }) => metric[name] ?? ""),
    config: {},
  });
  return [
    toDataFrame({
      refId: target.refId,
      fields: [
        { name: "Time", type: FieldType.time, values: answer.map(({ value }) => 1000 * value[0]), config: {} },
        ...labels.map(column),
        {
          name: panel.targets.length > 1 ? `Value #${target.refId}` : "Value",
          type: FieldType.number,
          values: numbers(answer.map(({ value }) => value[1])),
          config: {},
        },
      ],
    }),
  ];
}

standardTransformersRegistry.setInit(() =>
  Object.values(Object.fromEntries(Object.values(standardTransformers).map((one) => [one.id, one]))).map(
    (transformation) => ({ id: transformation.id, name: transformation.name, transformation: async () => transformation })
  )
);

const STANDARD = ["color", "decimals", "displayName", "links", "mappings", "max", "min", "noValue", "thresholds", "unit"];
const fieldConfigRegistry = new Registry(() => []);
for (const path of STANDARD) {
  register(path, path, false);
}
function register(id, path, isCustom) {
  fieldConfigRegistry.register({
    id, path, isCustom, name: id, process: identityOverrideProcessor, shouldApply: () => true, settings: {},
  });
}

async function dressed(panel) {
  const { defaults, overrides } = panel.fieldConfig;
  const custom = Object.keys(defaults.custom ?? {}).map((name) => `custom.${name}`);
  for (const id of custom.concat(overrides.flatMap(({ properties }) => properties.map(({ id }) => id)))) {
    if (!fieldConfigRegistry.getIfExists(id)) {
      register(id, id.slice("custom.".length), true);
    }
  }
  const data = await lastValueFrom(transformDataFrame(panel.transformations ?? [], frames(panel)));
  return applyFieldOverrides({
    data,
    fieldConfig: structuredClone(panel.fieldConfig),
    fieldConfigRegistry,
    replaceVariables: (text) => text,
    theme,
    timeZone: "utc",
  });
}

// -- panels ----------------------------------------------------------------------------------------

function Stat({ panel, data, width, height }) {
  const values = getFieldDisplayValues({
    data, fieldConfig: panel.fieldConfig, reduceOptions: panel.options.reduceOptions,
    replaceVariables: (text) => text, theme, timeZone: "utc",
  });
  const { textMode, colorMode, graphMode, justifyMode } = panel.options;
  const shown = data.length ? values : [{ display: { text: panel.fieldConfig.defaults.noValue, numeric: NaN } }];
  return shown.slice(0, 1).map(({ display }) => (
    <BigValue
      key={display.title} theme={theme} width={width} height={height} value={display}
      {...{ textMode: data.length ? textMode : "value", colorMode, graphMode, justifyMode }}
    />
  ));
}

function Bars({ panel, data, width, height }) {
  const values = getFieldDisplayValues({
    data, fieldConfig: panel.fieldConfig, reduceOptions: panel.options.reduceOptions,
    replaceVariables: (text) => text, theme, timeZone: "utc",
  });
  const { orientation, displayMode } = panel.options;
  const most = Math.max(1, ...values.map(({ display }) => display.numeric));
  const each = Math.floor((height - 8 * (values.length - 1)) / values.length);
  return (
    <div style={{ display: "grid", gap: 8 }}>
      {values.map(({ display, field, view, colIndex }) => (
        <BarGauge
          key={display.title} theme={theme} width={width} height={each} value={display} field={{ ...field, max: most }}
          display={view?.getFieldDisplayProcessor(colIndex)} orientation={orientation} displayMode={displayMode}
          alignmentFactors={{ title: "second third  ", text: "100" }}
        />
      ))}
    </div>
  );
}

function Lines({ panel, data, width, height }) {
  return (
    <TimeSeries
      frames={data} width={width} height={height} timeRange={timeRange} timeZone="utc" legend={panel.options.legend}
    >
      {(config) => <Marks config={config} />}
    </TimeSeries>
  );
}

function Marks({ config }) {
  useLayoutEffect(() => {
    config.addHook("draw", (plot) => {
      const { ctx, bbox } = plot;
      for (const { at, color } of annotations) {
        const x = Math.round(plot.valToPos(1000 * at, "x", true));
        ctx.save();
        ctx.beginPath();
        ctx.strokeStyle = theme.visualization.getColorByName(color);
        ctx.setLineDash([5, 5]);
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x, bbox.top + bbox.height);
        ctx.stroke();
        ctx.restore();
      }
    });
  }, [config]);
  return null;
}

function Rows({ panel, data, width, height }) {
  return (
    <Table
      data={data[0]} width={width} height={height} initialSortBy={panel.options.sortBy} columnMinWidth={90}
      cellHeight={panel.options.cellHeight}
    />
  );
}

// A sketch: Grafana does not publish its state timeline.
function Timeline({ data, width, height }) {
  const rows = data.flatMap((frame) =>
    frame.fields.slice(1).map((field) => ({ field, times: frame.fields[0].values, frame }))
  );
  const left = Math.min(190, width / 3);
  const high = Math.min(46, (height - 22) / rows.length);
  const x = (at) => left + ((at - 1000 * start) / (1000 * (end - start))) * (width - left);
  return (
    <svg width={width} height={height} fontFamily={theme.typography.fontFamily} fontSize={12}>
      {rows.map(({ field, times, frame }, row) => (
        <g key={row} transform={`translate(0 ${row * high})`}>
          <text x={left - 10} y={high / 2 + 4} textAnchor="end" fill={theme.colors.text.primary}>
            {getFieldDisplayName(field, frame, data)}
          </text>
          {times.map((at, index) => (
            <rect
              key={at} x={x(at)} width={(1000 * step * (width - left)) / (1000 * (end - start)) + 0.6}
              y={high * 0.12} height={high * 0.76} fill={field.display(field.values[index]).color} fillOpacity="0.9"
            />
          ))}
        </g>
      ))}
      {[0.02, 0.25, 0.5, 0.75].map((share) => (
        <text key={share} x={left + share * (width - left)} y={height - 4} fill={theme.colors.text.secondary}>
          {new Date(1000 * (start + share * (end - start))).toISOString().slice(11, 19)}
        </text>
      ))}
    </svg>
  );
}

const KINDS = { stat: Stat, bargauge: Bars, timeseries: Lines, table: Rows, "state-timeline": Timeline };

class Guard extends Component {
  state = {};
  static getDerivedStateFromError(error) {
    return { error };
  }
  render() {
    const { error } = this.state;
    return error ? <pre className="failed">{String(error.stack)}</pre> : this.props.children;
  }
}

function Panel({ panel, data, width, height }) {
  const Kind = KINDS[panel.type];
  const empty = !data.some(({ length }) => length) && panel.type !== "stat";
  return (
    <div className="panel" data-title={panel.title} data-empty={String(!data.some(({ length }) => length))}>
      <PanelChrome title={panel.title} description={panel.description} width={width} height={height}>
        {(innerWidth, innerHeight) =>
          empty ? (
            <div className="nothing" style={{ height: innerHeight }}>{panel.fieldConfig.defaults.noValue}</div>
          ) : (
            <Guard>
              <Kind panel={panel} data={data} width={innerWidth} height={innerHeight} />
            </Guard>
          )
        }
      </PanelChrome>
    </div>
  );
}

// -- the page --------------------------------------------------------------------------------------

const GAP = 8;
const CELL = 30;
const PADDING = narrow ? 8 : 16;
const span = (units, unit) => units * unit + (units - 1) * GAP;
const unitWidth = (window.innerWidth - 2 * PADDING - 23 * GAP) / 24;

function place({ x, y, w, h }) {
  return narrow
    ? { width: window.innerWidth - 2 * PADDING, height: span(h, CELL), style: { marginBottom: GAP } }
    : {
        width: span(w, unitWidth),
        height: span(h, CELL),
        style: { position: "absolute", left: x * (unitWidth + GAP), top: y * (CELL + GAP) },
      };
}

function Page({ panels }) {
  const bottom = Math.max(...panels.map(({ panel: { gridPos } }) => gridPos.y + gridPos.h)) * (CELL + GAP);
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <style>{`
        body { margin: 0; background: ${theme.colors.background.canvas}; height: auto; overflow: auto; }
        .bar { display: flex; flex-wrap: wrap; gap: 8px; padding-bottom: 12px; align-items: center;
               font: 14px ${theme.typography.fontFamily}; color: ${theme.colors.text.primary}; }
        .bar b { font-size: 18px; font-weight: 500; margin-right: 12px; }
        .bar span { border: 1px solid ${theme.colors.border.medium}; padding: 4px 8px; border-radius: 2px; }
        .bar i { font-style: normal; color: ${theme.colors.text.secondary}; margin-right: 6px; }
        .row { font: 500 16px ${theme.typography.fontFamily}; color: ${theme.colors.text.primary}; padding-top: 8px; }
        .nothing { display: grid; place-items: center; color: ${theme.colors.text.secondary};
                   font-family: ${theme.typography.fontFamily}; }
      `}</style>
      <div style={{ padding: PADDING }}>
        <div className="bar">
          <b>{dashboard.title}</b>
          {Object.entries(chosen).map(([name, value]) => (
            <span key={name}><i>{name}</i>{value === ".*" ? "All" : value}</span>
          ))}
          {dashboard.links.map(({ title }) => (
            <span key={title}>{title}</span>
          ))}
        </div>
        <div style={{ position: "relative", height: narrow ? "auto" : bottom }}>
          {panels.map(({ panel, data }) => {
            const { width, height, style } = place(panel.gridPos);
            return (
              <div key={panel.id} style={style}>
                {panel.type === "row" ? (
                  <div className="row">⌄ {panel.title}</div>
                ) : (
                  <Panel panel={panel} data={data} width={width} height={height} />
                )}
              </div>
            );
          })}
        </div>
      </div>
    </ThemeContext.Provider>
  );
}

const panels = [];
for (const panel of dashboard.panels) {
  panels.push({ panel, data: panel.type === "row" ? [] : await dressed(panel) });
}
await document.fonts.ready;
createRoot(document.getElementById("root")).render(<Page panels={panels} />);
requestAnimationFrame(() => requestAnimationFrame(() => document.body.setAttribute("data-drawn", "true")));
