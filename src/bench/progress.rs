//! What a person sees while a measurement runs.

use indicatif::{ProgressBar, ProgressStyle};

use super::worker::orders::Report;

/// A bar on standard error, if that is a terminal.
pub(crate) struct Progress {
    bar: ProgressBar,
    before: (std::time::Instant, Report),
    rates: String,
}

impl Progress {
    /// A bar for something that is done at `total`.
    pub(crate) fn new(what: &str, total: u64) -> Self {
        let bar = ProgressBar::new(total);
        // The template is a constant; if it were wrong, the default would do.
        let style = ProgressStyle::with_template("{prefix:>12} {bar:30} {percent:>3}%  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━━╌"));
        bar.set_prefix(what.to_owned());
        Self { bar, before: (std::time::Instant::now(), Report::default()), rates: String::new() }
    }

    /// How far it is, with live numbers.
    pub(crate) fn at(&mut self, position: u64, total: &Report) {
        let (since, before) = &self.before;
        let seconds = since.elapsed().as_secs_f64();
        if seconds >= 1.0 {
            let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
            let (sent, received) = (rate(total.sent, before.sent), rate(total.unique, before.unique));
            self.rates = format!("sent {sent:.0}/s  received {received:.0}/s");
            self.before = (std::time::Instant::now(), total.clone());
        }
        let troubles: u64 = total.troubles.values().sum();
        let waiting = if troubles == 0 { String::new() } else { format!("  troubles {troubles}") };
        self.bar.set_message(format!("{} connected  {}{waiting}", total.connected, self.rates));
        self.bar.set_position(position);
    }

    /// Something else is done now.
    pub(crate) fn say(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
