//! Conversations: messages to the text that a model was trained on, and a model's answer to messages.
//!
//! The way of a conversation: [`Messages`] collects messages, tools and variables as JSON and renders them with the
//! model's [`Template`]. Templates are programs in jinja2's language that come with the model's file. `rewrite` prepares
//! their text for the engine, the crate `minijinja`; `builtins`, `methods` and `json` are what they may call; `value`
//! and `fuel` see to it that they end. [`Answer::parse`] goes the other way, by THE table of styles in `answer`.

mod answer;
mod arguments;
mod builtins;
mod fuel;
mod json;
mod messages;
mod methods;
mod rewrite;
mod template;
mod text;
mod time;
mod value;

pub use answer::{Answer, ToolCall};
pub use messages::Messages;
pub use template::{Limits, Template};
