//! A sweep as a picture: latency against CPU, one pair of marks per setting. Pure: figures in, SVG text out.
//!
//! Right is dear, up is slow: a good setting is at the lower left. Latency has a logarithmic axis because busy and
//! sleeping pollers are a factor of thirty apart.

use std::fmt::Write as _;

use super::figures::Measurement;
use super::plan::Cores;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 620.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 940.0;
const TOP: f64 = 84.0;
const BOTTOM: f64 = 540.0;
/// Height of a label's line; labels are moved by it until they are apart.
const LINE: f64 = 14.0;
/// Width of a character of a label, generously.
const CHARACTER: f64 = 6.6;

/// Colors that also differ in brightness, one per strategy in order of appearance.
const COLORS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#7b3294"];

/// One setting.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// As `--poll` reads it.
    pub label: String,
    /// CPU time of both sides as a share of one core.
    pub cpu: f64,
    /// Median latency in microseconds.
    pub p50_us: f64,
    /// 99th percentile in microseconds.
    pub p99_us: f64,
}

impl Point {
    /// The strategy without its duration.
    fn strategy(&self) -> &str {
        self.label.split(':').next().unwrap_or_default()
    }
}

/// Everything in the picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Plot {
    /// What is shown.
    pub title: String,
    /// Under which conditions.
    pub subtitle: String,
    /// The settings.
    pub points: Vec<Point>,
}

impl Plot {
    /// The bridge's cases of a measurement.
    #[must_use]
    pub fn of(measurement: &Measurement) -> Self {
        let rows = measurement.results.iter().zip(&measurement.settings);
        let points = rows.filter_map(|(row, setting)| {
            Some(Point {
                label: setting.clone()?,
                cpu: row.client_cpu + row.server_cpu,
                p50_us: row.p50_ns as f64 / 1e3,
                p99_us: row.p99_ns as f64 / 1e3,
            })
        });
        let points: Vec<Point> = points.collect();
        let first = measurement.results.first();
        let operation = first.map_or("call", |row| row.operation.name());
        let (bytes, clients) = first.map_or((0, 0), |row| (row.payload_bytes, row.clients));
        let pace = measurement.pause_us.map_or_else(
            || "each call right after the last".to_owned(),
            |us| format!("pauses of {us:.0} us on average between calls"),
        );
        Self {
            title: format!("Bridge: latency of a {operation} against CPU, by poll strategy"),
            subtitle: format!(
                "{bytes} B, {clients} connected, {pace}; {} cores {}, medians of {} rounds",
                measurement.host.cores,
                match measurement.cores {
                    Cores::Shared => "shared",
                    Cores::Apart => "divided",
                },
                measurement.rounds
            ),
            points,
        }
    }

    /// The picture.
    #[must_use]
    pub fn svg(&self) -> String {
        let axes = Axes::of(&self.points);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
        );
        text(&mut svg, LEFT, 32.0, "start\" font-size=\"18", &self.title);
        text(&mut svg, LEFT, 52.0, "start\" fill=\"#555", &self.subtitle);
        axes.draw(&mut svg);
        self.draw_legend(&mut svg);
        self.draw_points(&mut svg, &axes);
        svg.push_str("</svg>\n");
        svg
    }

    fn strategies(&self) -> Vec<&str> {
        let mut strategies: Vec<&str> = Vec::new();
        for point in &self.points {
            if !strategies.contains(&point.strategy()) {
                strategies.push(point.strategy());
            }
        }
        strategies
    }

    fn color(&self, point: &Point) -> &'static str {
        let strategies = self.strategies();
        let index = strategies.iter().position(|name| *name == point.strategy());
        COLORS[index.unwrap_or(0) % COLORS.len()]
    }

    fn draw_legend(&self, svg: &mut String) {
        let mut x = LEFT;
        let y = TOP - 14.0;
        for (index, strategy) in self.strategies().into_iter().enumerate() {
            let color = COLORS[index % COLORS.len()];
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"12\" height=\"12\" fill=\"{color}\"/>",
                y - 10.0
            );
            text(svg, x + 18.0, y, "start", strategy);
            x += 30.0 + CHARACTER * strategy.len() as f64 + 14.0;
        }
        for (name, fill) in [("median", "#666"), ("99th percentile", "#fff")] {
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"5\" fill=\"{fill}\" stroke=\"#666\" stroke-width=\"1.5\"/>",
                x + 6.0,
                y - 4.0
            );
            text(svg, x + 18.0, y, "start", name);
            x += 30.0 + CHARACTER * name.len() as f64 + 14.0;
        }
    }

    fn draw_points(&self, svg: &mut String, axes: &Axes) {
        let mark = |point: &Point, us| Label::over_mark(axes.x(point.cpu), axes.y(us));
        let marks = self.points.iter();
        let mut taken: Vec<Label> = marks
            .flat_map(|point| [point.p50_us, point.p99_us].map(|us| mark(point, us)))
            .collect();
        for point in &self.points {
            let color = self.color(point);
            let (x, median, tail) = (
                axes.x(point.cpu),
                axes.y(point.p50_us),
                axes.y(point.p99_us),
            );
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" y1=\"{median:.1}\" x2=\"{x:.1}\" y2=\"{tail:.1}\" stroke=\"{color}\" stroke-opacity=\"0.45\"/>\n\
                 <circle cx=\"{x:.1}\" cy=\"{tail:.1}\" r=\"5\" fill=\"#fff\" stroke=\"{color}\" stroke-width=\"1.5\"/>\n\
                 <circle cx=\"{x:.1}\" cy=\"{median:.1}\" r=\"5\" fill=\"{color}\"/>"
            );
            let label = Label::beside(x, median, &point.label).apart_from(&taken);
            let place = format!("{}\" fill=\"{color}", label.anchor());
            text(svg, label.anchor_x(), label.y + 4.0, &place, &point.label);
            if (label.y - median).abs() > LINE {
                // Moved away from its mark: a thin line says which one it belongs to.
                let end = label.anchor_x();
                let _ = writeln!(
                    svg,
                    "<line x1=\"{x:.1}\" y1=\"{median:.1}\" x2=\"{end:.1}\" y2=\"{:.1}\" stroke=\"{color}\" stroke-opacity=\"0.3\"/>",
                    label.y
                );
            }
            taken.push(label);
        }
    }
}

/// Where a label lies.
#[derive(Debug, Clone, Copy)]
struct Label {
    left: f64,
    width: f64,
    y: f64,
    before: bool,
}

impl Label {
    /// To the right of its mark, or to the left where it would leave the picture.
    fn beside(x: f64, y: f64, text: &str) -> Self {
        let width = CHARACTER * text.chars().count() as f64;
        let before = x + 10.0 + width > RIGHT;
        let left = if before { x - 10.0 - width } else { x + 10.0 };
        Self {
            left,
            width,
            y,
            before,
        }
    }

    /// The place of a mark itself, which no label may cover.
    fn over_mark(x: f64, y: f64) -> Self {
        Self {
            left: x - 6.0,
            width: 12.0,
            y,
            before: false,
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        (self.y - other.y).abs() < LINE
            && self.left < other.left + other.width
            && other.left < self.left + self.width
    }

    /// The nearest free place above or below.
    fn apart_from(self, taken: &[Self]) -> Self {
        let places = (0..40).flat_map(|step| {
            let away = f64::from(step) * LINE;
            [self.y + away, self.y - away].map(|y| Self { y, ..self })
        });
        let within = |label: &Self| (TOP..BOTTOM - 2.0).contains(&label.y);
        let free = |label: &Self| within(label) && !taken.iter().any(|other| other.overlaps(label));
        places.into_iter().find(free).unwrap_or(self)
    }

    fn anchor(&self) -> &'static str {
        if self.before { "end" } else { "start" }
    }

    fn anchor_x(&self) -> f64 {
        if self.before {
            self.left + self.width
        } else {
            self.left
        }
    }
}

/// Scales of both axes.
#[derive(Debug)]
struct Axes {
    most_cpu: f64,
    cpu_step: f64,
    /// Exponents of ten.
    lowest: f64,
    highest: f64,
}

impl Axes {
    fn of(points: &[Point]) -> Self {
        let most_cpu = points.iter().map(|point| point.cpu).fold(0.0, f64::max);
        let cpu_step = if most_cpu > 1.0 {
            0.25
        } else if most_cpu > 0.4 {
            0.1
        } else {
            0.05
        };
        let latencies = || points.iter().flat_map(|point| [point.p50_us, point.p99_us]);
        let positive = || latencies().filter(|us| *us > 0.0);
        let lowest = positive().fold(f64::INFINITY, f64::min).min(1e6).log10();
        let highest = positive().fold(1.0, f64::max).log10();
        Self {
            most_cpu: ((most_cpu * 1.02 / cpu_step).floor() + 1.0) * cpu_step,
            cpu_step,
            // A little room, so that no mark lies on the frame.
            lowest: lowest.min(highest) - 0.15,
            highest: highest + 0.15,
        }
    }

    fn x(&self, cpu: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * cpu / self.most_cpu
    }

    fn y(&self, us: f64) -> f64 {
        let share = (us.max(1e-3).log10() - self.lowest) / (self.highest - self.lowest);
        BOTTOM - (BOTTOM - TOP) * share.clamp(0.0, 1.0)
    }

    fn draw(&self, svg: &mut String) {
        let mut step = 0.0;
        while step * self.cpu_step <= self.most_cpu + 1e-9 {
            let cpu = step * self.cpu_step;
            let x = self.x(cpu);
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{BOTTOM}\" stroke=\"#e4e4e4\"/>"
            );
            text(
                svg,
                x,
                BOTTOM + 20.0,
                "middle",
                &format!("{:.0} %", cpu * 100.0),
            );
            step += 1.0;
        }
        for exponent in -1..=6 {
            for digit in [1.0, 2.0, 5.0] {
                let us = digit * 10_f64.powi(exponent);
                if !(self.lowest..=self.highest).contains(&us.log10()) {
                    continue;
                }
                let y = self.y(us);
                let _ = writeln!(
                    svg,
                    "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{RIGHT}\" y2=\"{y:.1}\" stroke=\"#e4e4e4\"/>"
                );
                text(svg, LEFT - 8.0, y + 4.0, "end", &format!("{us}"));
            }
        }
        let _ = writeln!(
            svg,
            "<path d=\"M {LEFT} {TOP} V {BOTTOM} H {RIGHT}\" fill=\"none\" stroke=\"#222\"/>"
        );
        text(
            svg,
            f64::midpoint(LEFT, RIGHT),
            BOTTOM + 46.0,
            "middle",
            "CPU time of both sides, share of one core",
        );
        let middle = f64::midpoint(TOP, BOTTOM);
        let turned = format!("middle\" transform=\"rotate(-90 24 {middle})");
        text(
            svg,
            24.0,
            middle,
            &turned,
            "round trip in microseconds, logarithmic",
        );
    }
}

/// `place` is the anchor, with further attributes behind it where needed.
fn text(svg: &mut String, x: f64, y: f64, place: &str, words: &str) {
    let words = words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{place}\">{words}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::figures::tests::made_up;

    fn plot() -> Plot {
        let point = |label: &str, cpu, p50_us, p99_us| Point {
            label: label.to_owned(),
            cpu,
            p50_us,
            p99_us,
        };
        Plot {
            title: "a < b & c".to_owned(),
            subtitle: "two cores".to_owned(),
            points: vec![
                point("event", 0.30, 80.0, 150.0),
                point("adaptive:0", 0.31, 80.5, 160.0),
                point("adaptive:50us", 0.9, 8.0, 90.0),
                point("busy", 2.0, 4.0, 20.0),
            ],
        }
    }

    /// Every element is closed, in order; text and attributes have no bare markup.
    fn check_well_formed(svg: &str) {
        let mut open: Vec<&str> = Vec::new();
        for piece in svg.split('<').skip(1) {
            let (tag, rest) = piece.split_once('>').expect("a tag ends");
            assert!(!rest.contains('>'), "{piece}");
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !tag.ends_with('/') {
                open.push(tag.split(' ').next().unwrap_or_default());
            }
        }
        assert!(open.is_empty(), "{open:?}");
        let entities = svg.matches('&').count();
        let known = ["&amp;", "&lt;", "&gt;"].map(|entity| svg.matches(entity).count());
        assert_eq!(entities, known.iter().sum::<usize>());
    }

    #[test]
    fn the_picture_is_well_formed_and_names_everything() {
        let svg = plot().svg();
        check_well_formed(&svg);
        for words in [
            "a &lt; b &amp; c",
            "adaptive:50us",
            "share of one core",
            "microseconds",
            "99th",
        ] {
            assert!(svg.contains(words), "{words}");
        }
        assert_eq!(svg.matches("<circle").count(), 2 * 4 + 2);
    }

    #[test]
    fn an_empty_plot_is_a_picture_too() {
        let plot = Plot {
            points: Vec::new(),
            ..plot()
        };
        check_well_formed(&plot.svg());
        assert!(!plot.svg().contains("NaN") && !plot.svg().contains("inf"));
    }

    #[test]
    fn labels_of_neighbors_are_moved_apart() {
        let first = Label::beside(100.0, 200.0, "event");
        let second = Label::beside(102.0, 201.0, "adaptive:0").apart_from(&[first]);
        assert!(!second.overlaps(&first));
        assert!((second.y - 201.0).abs() <= 2.0 * LINE);
        assert_eq!(Label::beside(RIGHT - 5.0, 200.0, "busy").anchor(), "end");
    }

    #[test]
    fn a_measurement_is_drawn_by_its_bridge_cases() {
        let plot = Plot::of(&made_up(|_| 5000));
        assert!(
            plot.points
                .iter()
                .all(|point| (point.p50_us - 5.0).abs() < 0.1)
        );
        assert!(
            plot.points
                .iter()
                .any(|point| point.label == "adaptive:50us")
        );
        check_well_formed(&plot.svg());
    }
}
