//! What the state looks like in a terminal, from 80 columns and 24 lines on.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::Line,
    widgets::{Block, Cell, Row as TableRow, Sparkline, Table, TableState},
};

use super::{
    measure::short,
    state::{Row, State},
};

/// Lines of the history, with its frame.
const HISTORY_LINES: u16 = 5;
/// Lines around a table's rows: frame and heads.
const TABLE_LINES: u16 = 3;

/// Draws everything.
pub fn draw(state: &State, frame: &mut Frame<'_>) {
    let listeners = u16::try_from(state.listeners().len()).unwrap_or(u16::MAX);
    // Listeners leave the better part to targets.
    let most = (frame.area().height / 3).max(TABLE_LINES + 1);
    let lines = [
        Constraint::Length(1),
        Constraint::Length(HISTORY_LINES),
        Constraint::Length(listeners.saturating_add(TABLE_LINES).min(most)),
        Constraint::Min(TABLE_LINES + 1),
        Constraint::Length(1),
        Constraint::Length(1),
    ];
    let [title, history, listeners, targets, stops, keys] =
        Layout::vertical(lines).areas(frame.area());
    draw_title(state, frame, title);
    draw_history(state, frame, history);
    draw_listeners(state, frame, listeners);
    draw_targets(state, frame, targets);
    frame.render_widget(Line::from(stops_line(state)), stops);
    frame.render_widget(Line::from(keys_line(state)).style(Modifier::DIM), keys);
}

fn draw_title(state: &State, frame: &mut Frame<'_>, area: Rect) {
    let text = match state.warnings {
        0 => state.title.clone(),
        some => format!("{}  warnings {some}: see nlb status", state.title),
    };
    let colour = if state.warnings > 0 {
        Color::Yellow
    } else {
        Color::Reset
    };
    let style = Style::new().fg(colour).add_modifier(Modifier::BOLD);
    frame.render_widget(Line::from(text).style(style), area);
}

fn draw_history(state: &State, frame: &mut Frame<'_>, area: Rect) {
    #[expect(clippy::cast_precision_loss, reason = "only shown")]
    let as_text = |packets: Option<&u64>| short(packets.copied().unwrap_or_default() as f64);
    let now = as_text(state.history.back());
    let most = as_text(state.history.iter().max());
    let block = Block::bordered().title(format!(" packets/s  now {now}  most {most} "));
    // The newest stand at the right.
    let room = usize::from(area.width.saturating_sub(2));
    let missing = room.saturating_sub(state.history.len());
    let skipped = state.history.len().saturating_sub(room);
    let points = std::iter::repeat_n(0, missing).chain(state.history.iter().skip(skipped).copied());
    let line = Sparkline::default()
        .block(block)
        .data(points.collect::<Vec<u64>>());
    frame.render_widget(line, area);
}

fn draw_listeners(state: &State, frame: &mut Frame<'_>, area: Rect) {
    let rows = state.listeners().into_iter().map(|row| {
        let cells = [row.name.clone()].into_iter().chain(measures(row));
        TableRow::new(cells.map(Cell::from))
    });
    let widths = [Constraint::Min(30)].into_iter().chain(MEASURES);
    let heads = ["listener"].into_iter().chain(MEASURE_HEADS);
    let table = Table::new(rows, widths)
        .header(TableRow::new(heads).style(Modifier::BOLD))
        .block(Block::bordered().title(" listeners "));
    frame.render_widget(table, area);
}

fn draw_targets(state: &State, frame: &mut Frame<'_>, area: Rect) {
    let rows = state.targets().into_iter().map(|row| {
        let check = row
            .latency
            .map_or_else(|| "-".to_owned(), |it| format!("{:.1}ms", it * 1e3));
        let cells = [row.of.clone(), row.name.clone(), row.state.clone()];
        let numbers = [format!("{}", row.weight)];
        let cells = cells
            .into_iter()
            .chain(numbers)
            .chain(measures(row))
            .chain([check]);
        TableRow::new(cells.map(Cell::from)).style(Style::new().fg(colour_of(&row.state)))
    });
    let widths = [
        Constraint::Fill(2),
        Constraint::Fill(3),
        Constraint::Length(10),
        Constraint::Length(4),
    ];
    let heads = ["group", "target", "state", "w"]
        .into_iter()
        .chain(MEASURE_HEADS);
    let table = Table::new(
        rows,
        widths
            .into_iter()
            .chain(MEASURES)
            .chain([Constraint::Length(8)]),
    )
    .header(TableRow::new(heads.chain(["check"])).style(Modifier::BOLD))
    .row_highlight_style(Modifier::REVERSED)
    .block(Block::bordered().title(" targets "));
    let mut selection = TableState::new().with_selected(state.selected());
    frame.render_stateful_widget(table, area, &mut selection);
}

const MEASURES: [Constraint; 4] = [Constraint::Length(6); 4];
const MEASURE_HEADS: [&str; 4] = ["pkt/s", "bit/s", "new/s", "flows"];

fn measures(row: &Row) -> [String; 4] {
    #[expect(clippy::cast_precision_loss, reason = "only shown")]
    let flows = row.flows as f64;
    [
        row.rates.packets,
        row.rates.bits,
        row.rates.new_flows,
        flows,
    ]
    .map(short)
}

fn colour_of(state: &str) -> Color {
    match state {
        "healthy" => Color::Green,
        "unhealthy" | "unhealthy.draining" => Color::Red,
        "draining" | "initial" => Color::Yellow,
        _ => Color::Reset,
    }
}

fn stops_line(state: &State) -> String {
    let stops: Vec<_> = (state.stops.iter())
        .map(|(name, rate)| format!("{name} {}", short(*rate)))
        .collect();
    if stops.is_empty() {
        "stops/s: none".to_owned()
    } else {
        format!("stops/s: {}", stops.join("  "))
    }
}

fn keys_line(state: &State) -> String {
    if let Some((group, target)) = &state.drains {
        return format!("drain {target} of {group}? y: yes, any other key: no");
    }
    if state.is_typing {
        return format!("filter: {}_", state.filter);
    }
    if !state.notice.is_empty() {
        return state.notice.clone();
    }
    let filter = if state.filter.is_empty() {
        String::new()
    } else {
        format!(": {}", state.filter)
    };
    let sort = state.sort.name();
    format!("q quit  s sort: {sort}  / filter{filter}  d drain  up, down select")
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
