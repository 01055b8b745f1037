//! Requests that can't be said on a side.

use http::StatusCode;

/// A request that can't be said on a side; in the words of the client's dialect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An embed spans two domains (`schema.cross_schema_embeds`).
    #[error("Could not embed '{embed}' in '{resource}': they are in different domains")]
    CrossSchemaEmbed {
        /// The table or function that was asked for.
        resource: String,
        /// The embedded table.
        embed: String,
    },
    /// The map does not know the name (`schema.unmapped = "refuse"`).
    #[error("Could not find the {} '{schema}.{name}' in the schema map", if *is_function { "function" } else { "table" })]
    Unmapped {
        /// The client's profile.
        schema: String,
        /// The table or function.
        name: String,
        /// Whether it is a function.
        is_function: bool,
    },
}

impl Refusal {
    /// 422 or 404.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::CrossSchemaEmbed { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unmapped { .. } => StatusCode::NOT_FOUND,
        }
    }

    /// The `message`.
    #[must_use]
    pub fn message(&self) -> String {
        self.to_string()
    }

    /// The `details`.
    #[must_use]
    pub const fn details(&self) -> &'static str {
        match self {
            Self::CrossSchemaEmbed { .. } => {
                "The two tables are no longer in one schema, and an embed can't cross schemas."
            }
            Self::Unmapped { .. } => {
                "The name is not in the schema map, and unmapped names are refused."
            }
        }
    }

    /// The `hint`.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::CrossSchemaEmbed { .. } => {
                "Ask for the two in two requests, or let the operator provide compatibility views."
            }
            Self::Unmapped { .. } => "Check the name and the profile header of the request.",
        }
    }
}
