//! [`Loaded`]: something that may not be here yet.

use partysync::Error;

/// Something that may not be here yet, or cannot be had: never to be mixed up with nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Loaded<T> {
    /// The rows are on their way.
    Loading,
    /// Here it is.
    Ready(T),
    /// It cannot be had, and why.
    Failed(Error),
}

impl<T> Loaded<T> {
    /// What is here.
    ///
    /// ```
    /// use partysync_client::leptos::Loaded;
    ///
    /// assert_eq!(Loaded::Ready(3).ready(), Some(3));
    /// assert_eq!(Loaded::<u64>::Loading.ready(), None);
    /// ```
    pub fn ready(self) -> Option<T> {
        match self {
            Self::Ready(value) => Some(value),
            Self::Loading | Self::Failed(_) => None,
        }
    }

    /// Something else that is made of what is here.
    ///
    /// ```
    /// use partysync_client::leptos::Loaded;
    ///
    /// assert_eq!(Loaded::Ready(3).map(|n| n + 1), Loaded::Ready(4));
    /// ```
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Loaded<U> {
        match self {
            Self::Loading => Loaded::Loading,
            Self::Ready(value) => Loaded::Ready(f(value)),
            Self::Failed(error) => Loaded::Failed(error),
        }
    }
}
