//! Which layer gets which pattern: rules `[GLOB=]PATTERN[/FORMAT]`, the last match wins.

use crate::error::{Error, Result};
use crate::pattern::SparsityPattern;
use crate::sparsity::{FormatName, StorageFormat};
use globset::{GlobBuilder, GlobMatcher};
use std::fmt;
use std::str::FromStr;

/// A pattern with the storage format asked for, if any.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The pattern.
    pub pattern: SparsityPattern,
    /// The format; the pattern's natural one, or the device's choice, where nobody asked.
    pub format: Option<FormatName>,
}

impl Choice {
    /// Dense, nothing asked.
    pub const DENSE: Self = Self { pattern: SparsityPattern::Dense, format: None };

    /// The storage format with its numbers.
    ///
    /// # Errors
    /// A format that the pattern does not determine.
    pub fn storage(&self) -> Result<StorageFormat> {
        match self.format {
            Some(name) => name.of(self.pattern),
            None => Ok(StorageFormat::natural(self.pattern)),
        }
    }
}

impl FromStr for Choice {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let (pattern, format) = match text.rsplit_once('/') {
            Some((p, f)) => (p.parse()?, Some(f.parse::<FormatName>()?)),
            None => (text.parse()?, None),
        };
        let choice = Self { pattern, format };
        choice.storage()?;
        Ok(choice)
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.pattern)?;
        self.format.map_or(Ok(()), |name| write!(f, "/{name}"))
    }
}

/// One rule of an assignment.
#[derive(Clone, Debug)]
pub struct Rule {
    /// As it was written.
    pub text: String,
    /// What it assigns.
    pub choice: Choice,
    scope: Option<(String, GlobMatcher)>,
}

impl Rule {
    /// The rule that gives every layer the same.
    pub fn everywhere(choice: Choice) -> Self {
        Self { text: choice.to_string(), choice, scope: None }
    }

    /// Whether the rule speaks of this layer.
    pub fn matches(&self, layer: &str) -> bool {
        // A name may contain what a glob would read as a wildcard.
        self.scope.as_ref().is_none_or(|(name, glob)| name == layer || glob.is_match(layer))
    }

    /// Whether it names exactly one layer, so that what cannot be done there must be refused, not skipped.
    pub fn names_one_layer(&self, layer: &str) -> bool {
        self.scope.as_ref().is_some_and(|(name, _)| name == layer)
    }
}

impl FromStr for Rule {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let (scope, choice) = match text.rsplit_once('=') {
            Some((glob, choice)) => {
                let matcher = GlobBuilder::new(glob).backslash_escape(true).build().map_err(|e| Error::Pattern {
                    text: text.to_owned(),
                    reason: format!("`{glob}` is not a layer glob ({})", e.kind()),
                })?;
                (Some((glob.to_owned(), matcher.compile_matcher())), choice)
            }
            None => (None, text),
        };
        Ok(Self { text: text.to_owned(), choice: choice.parse()?, scope })
    }
}

/// Rules in the order in which they were given.
#[derive(Clone, Debug, Default)]
pub struct Assignment {
    /// The rules.
    pub rules: Vec<Rule>,
}

impl Assignment {
    /// Everything dense.
    pub fn dense() -> Self {
        Self::default()
    }

    /// Reads rules from their texts.
    ///
    /// # Errors
    /// The first text that is not a rule.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self> {
        Ok(Self { rules: texts.iter().map(|t| t.as_ref().parse()).collect::<Result<_>>()? })
    }

    /// The last rule that speaks of the layer.
    pub fn rule(&self, layer: &str) -> Option<&Rule> {
        self.rules.iter().rev().find(|r| r.matches(layer))
    }

    /// What the layer gets.
    pub fn choice(&self, layer: &str) -> Choice {
        self.rule(layer).map_or(Choice::DENSE, |r| r.choice)
    }

    /// Refuses a rule with a glob that speaks of none of the layers: it would do nothing in silence.
    ///
    /// # Errors
    /// [`Error::Pattern`] with the nearest layer name.
    pub fn check<'a>(&self, layers: impl Iterator<Item = &'a str> + Clone) -> Result<()> {
        for rule in &self.rules {
            if layers.clone().any(|l| rule.matches(l)) {
                continue;
            }
            let glob = rule.scope.as_ref().map_or("*", |(g, _)| g);
            let near = match Error::unknown("layer", glob, layers.clone()) {
                Error::UnknownName { suggestion: Some(s), .. } => format!("; did you mean `{s}`?"),
                _ => "; `hwsim inspect` lists them".to_owned(),
            };
            let reason = format!("no layer with weights matches `{glob}`{near}");
            return Err(Error::Pattern { text: rule.text.clone(), reason });
        }
        Ok(())
    }
}
