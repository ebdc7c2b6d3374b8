//! Where there is no page, there is no panel.

use super::Look;

/// Shows the panel, whatever the page's address says.
pub fn open() {}

/// Closes the panel.
pub fn close() {}

pub(super) fn watch(_: String, _: Look) {}
