//! [`StopText`]: stop strings, matched on text as it streams.

/// Passes text on as soon as it cannot be the beginning of a stop string any more.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopText {
    stops: Vec<String>,
    held: String, // the longest tail that may still become a stop string
}

/// What became of a piece of text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// This much may be shown; more is to come.
    Text(String),
    /// This much may be shown; then a stop string came.
    Stop(String),
}

impl StopText {
    pub fn new(stops: &[String]) -> Self {
        Self { stops: stops.to_vec(), held: String::new() }
    }

    /// Takes `text` in. The stop string that is complete first wins, whatever pieces the text comes in; of several that end
    /// at one place, the longest.
    pub fn push(&mut self, text: &str) -> Passed {
        self.held.push_str(text);
        if let Some(at) = first_match(&self.held, &self.stops) {
            self.held.truncate(at);
            return Passed::Stop(std::mem::take(&mut self.held));
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        Passed::Text(std::mem::replace(&mut self.held, rest))
    }

    /// What is still held back, when no more text comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Where the stop string begins that is complete first.
fn first_match(text: &str, stops: &[String]) -> Option<usize> {
    let matches = stops.iter().filter_map(|stop| text.find(stop).map(|at| (at + stop.len(), at)));
    matches.min().map(|(_, at)| at)
}

/// Bytes of the longest tail of `text` that `stop` begins with.
fn overlap(text: &str, stop: &str) -> usize {
    let borders = text.char_indices().map(|(at, _)| at).filter(|at| text.len() - at < stop.len());
    borders.map(|at| &text[at..]).find(|tail| stop.starts_with(tail)).map_or(0, str::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_held_back_only_while_it_may_become_a_stop_string() {
        let mut stop = StopText::new(&["\n\nQ:".into(), "끝입니다".into()]);
        assert_eq!(stop.push("서울은 끝"), Passed::Text("서울은 ".into()));
        assert_eq!(stop.push("없다.\n"), Passed::Text("끝없다.".into()));
        assert_eq!(stop.push("\n"), Passed::Text(String::new()));
        assert_eq!(stop.push("Q"), Passed::Text(String::new()));
        assert_eq!(stop.push(": next"), Passed::Stop(String::new()));
    }

    #[test]
    fn what_is_complete_first_wins_and_the_tail_is_flushed() {
        let mut stop = StopText::new(&["cd".into(), "bcde".into()]);
        assert_eq!(stop.push("abc"), Passed::Text("a".into()));
        assert_eq!(stop.finish(), "bc");
        assert_eq!(stop.push("abcdef"), Passed::Stop("ab".into()));
        assert_eq!(stop.push("bce"), Passed::Text("bce".into()));
    }

    /// Against the naive twin: cut the whole text at the first stop string.
    #[test]
    fn streaming_equals_cutting_the_whole_text() {
        let text = "aababcabcdabcabcab가나다라가나";
        for stops in [
            vec!["abcabcab가"],
            vec!["bcd", "cda"],
            vec!["가나가"],
            vec!["나다", "다라가"],
            vec!["zz"],
            vec!["cd", "bcda"],
            vec!["cda", "bcda"],
            vec![],
        ] {
            let stops: Vec<String> = stops.into_iter().map(String::from).collect();
            // The shortest beginning of the text that ends in a stop string, without the longest such.
            let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
            let cut = ends.flat_map(|end| {
                let stop = stops.iter().filter(|stop| text[..end].ends_with(*stop)).map(String::len).max();
                stop.map(|len| end - len)
            });
            let cut = cut.into_iter().next().unwrap_or(text.len());
            for size in 1..6 {
                let (mut stop, mut got) = (StopText::new(&stops), String::new());
                let chars: Vec<char> = text.chars().collect();
                let stopped =
                    chars.chunks(size).any(|piece| match stop.push(&piece.iter().collect::<String>()) {
                        Passed::Text(text) => {
                            got += &text;
                            false
                        }
                        Passed::Stop(text) => {
                            got += &text;
                            true
                        }
                    });
                if !stopped {
                    got += &stop.finish();
                }
                assert_eq!(
                    (got.as_str(), stopped),
                    (&text[..cut], cut < text.len()),
                    "{stops:?} size {size}"
                );
            }
        }
    }
}
