//! Lines of the log on their way to the collector.

use std::cell::Cell;
use std::fmt::{self, Debug, Write as _};

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::base::clock::Clock as _;
use crate::infra::telemetry::current;

use super::records::{attribute, line, number, of_request, text};

/// Fields that a line keeps.
const FIELDS: usize = 32;
/// Bytes that a line keeps of all its fields.
const BYTES: usize = 16 * 1024;

thread_local! {
    static EXPORTING: Cell<bool> = const { Cell::new(false) };
}

/// Says of this thread that it exports: what it logs itself is for the log alone, so that nothing goes round in circles.
pub(super) fn this_thread_exports() {
    EXPORTING.set(true);
}

/// Hands every line over that the filters above let through.
pub(in crate::infra::telemetry) struct Exported;

impl<S: Subscriber> Layer<S> for Exported {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(otlp) = super::active().filter(|_| !EXPORTING.try_with(Cell::get).unwrap_or(true)) else { return };
        let metadata = event.metadata();
        let mut fields = Fields { message: String::new(), attributes: Vec::with_capacity(8), room: BYTES };
        fields.attributes.push(text("target", metadata.target()));
        event.record(&mut fields);
        let at = super::records::nanos(otlp.clock.now());
        let mut record = line(at, *metadata.level(), &fields.message, fields.attributes);
        current::with(|request| of_request(&mut record, &**request));
        otlp.line(record);
    }
}

/// A line's fields.
struct Fields {
    message: String,
    attributes: Vec<KeyValue>,
    room: usize,
}

impl Fields {
    fn add(&mut self, attribute: KeyValue) {
        if self.attributes.len() < FIELDS {
            self.attributes.push(attribute);
        }
    }

    /// Adds text, as much of it as there is room for.
    fn add_text(&mut self, field: &Field, value: &dyn fmt::Display) {
        let mut bounded = Bounded { text: String::new(), room: self.room };
        // Fails where the room is used up: what is there is kept.
        let _ = write!(bounded, "{value}");
        self.room = bounded.room;
        if field.name() == "message" {
            self.message = bounded.text;
        } else {
            self.add(text(field.name(), &bounded.text));
        }
    }
}

/// Text that ends where its room does.
struct Bounded {
    text: String,
    room: usize,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let fits = more.floor_char_boundary(self.room);
        self.text.push_str(&more[..fits]);
        self.room -= fits;
        if fits < more.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

/// Shows a value as its `Debug` form.
struct Shown<'a>(&'a dyn Debug);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add_text(field, &Shown(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add_text(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(number(field.name(), value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(number(field.name(), value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(attribute(field.name(), Value::DoubleValue(value)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(attribute(field.name(), Value::BoolValue(value)));
    }
}
