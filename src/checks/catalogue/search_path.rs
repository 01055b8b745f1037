//! A function's own `search_path`, as PostgreSQL keeps it.

use super::Function;

impl Function {
    /// The schemas of its own `SET search_path`, in order; `None`: it has none of its own.
    #[must_use]
    pub fn search_path(&self) -> Option<Vec<String>> {
        configured(&self.settings)
    }
}

/// The names in `search_path=a, "B c"`; `None`: the function has none of its own.
fn configured(settings: &[String]) -> Option<Vec<String>> {
    let text = settings.iter().find_map(|it| it.strip_prefix("search_path="))?;
    let mut names = Vec::new();
    let mut name = String::new();
    let mut letters = text.chars().peekable();
    let mut quoted = false;
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                name.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => names.push(std::mem::take(&mut name)),
            ' ' if !quoted => {}
            letter => name.push(letter),
        }
    }
    names.push(name);
    names.retain(|name| !name.is_empty());
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_path_is_read_as_postgresql_keeps_it() {
        let read = |text: &str| configured(&[text.to_owned()]);
        assert_eq!(read("work_mem=1"), None);
        assert_eq!(read("search_path=\"\""), Some(vec![]));
        assert_eq!(
            read("search_path=public, extensions"),
            Some(vec!["public".into(), "extensions".into()])
        );
        assert_eq!(
            read("search_path=\"My, \"\"s\"\"\", a"),
            Some(vec!["My, \"s\"".into(), "a".into()])
        );
    }
}
