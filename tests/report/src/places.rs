//! Names of guests or modes with the Xens on which something happened, in few words.

/// Where something happened: a guest or a mode, and its Xens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(Vec<(String, Vec<String>)>);

/// How many names on the same Xens are said.
const SHOWN: usize = 4;

impl Places {
    /// Adds a place.
    pub fn add(&mut self, name: &str, xen: &str) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, xens)) if xens.iter().any(|known| known == xen) => {}
            Some((_, xens)) => xens.push(xen.to_owned()),
            None => self.0.push((name.to_owned(), vec![xen.to_owned()])),
        }
    }

    /// Returns the names, those on the same Xens together: `a, b on 4.17; c`. Names without a Xen are
    /// on all of `xens`. Of many names the rest is a number.
    pub fn text(&self, xens: &[String]) -> String {
        let mut groups: Vec<(Vec<&str>, &[String])> = Vec::new();
        for (name, on) in &self.0 {
            match groups.iter_mut().find(|(_, known)| known == on) {
                Some((names, _)) => names.push(name),
                None => groups.push((vec![name], on)),
            }
        }
        let words = groups.iter().map(|(names, on)| {
            let names = match names.len().checked_sub(SHOWN) {
                Some(more @ 2..) => format!("{}, {more} more", names[..SHOWN].join(", ")),
                _ => names.join(", "),
            };
            let is_on_all = xens.iter().all(|xen| on.contains(xen));
            if is_on_all { names } else { format!("{names} on {}", on.join(", ")) }
        });
        words.collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_same_xens_are_said_together() {
        let mut places = Places::default();
        let all =
            [("a", "1"), ("b", "1"), ("c", "1"), ("b", "2"), ("d", "2"), ("c", "2"), ("c", "2")];
        all.iter().for_each(|(name, xen)| places.add(name, xen));
        let xens = ["1", "2"].map(str::to_owned);
        assert_eq!(places.text(&xens), "a on 1; b, c; d on 2");
        assert_eq!(places.text(&xens[..1]), "a; b, c; d on 2");
    }

    #[test]
    fn many_names_are_counted() {
        let text = |count: usize| {
            let mut places = Places::default();
            (0..count).for_each(|name| places.add(&name.to_string(), "1"));
            places.text(&[])
        };
        assert_eq!([text(5), text(9)], ["0, 1, 2, 3, 4", "0, 1, 2, 3, 5 more"]);
    }
}
