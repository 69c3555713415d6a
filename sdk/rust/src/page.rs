//! Lists that come in pages.

use std::collections::VecDeque;

use futures::{Stream, stream};

use crate::Error;

/// Every item, fetching a page when the one before is used up.
pub(crate) fn all<T, F, Fut>(fetch: F) -> impl Stream<Item = Result<T, Error>> + Send
where
    T: Send,
    F: Fn(String) -> Fut + Send,
    Fut: Future<Output = Result<(Vec<T>, String), Error>> + Send,
{
    let start = (fetch, VecDeque::new(), Some(String::new()));
    stream::try_unfold(start, |(fetch, mut items, mut token)| async move {
        loop {
            if let Some(item) = items.pop_front() {
                return Ok(Some((item, (fetch, items, token))));
            }
            let Some(page_token) = token.take() else { return Ok(None) };
            let (page, next) = fetch(page_token).await?;
            items.extend(page);
            token = Some(next).filter(|next| !next.is_empty());
        }
    })
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt as _;

    use super::*;

    #[tokio::test]
    async fn follows_the_tokens_over_empty_pages() {
        let pages = |token: String| async move {
            Ok(match token.as_str() {
                "" => (vec![1, 2], "a".to_owned()),
                "a" => (vec![], "b".to_owned()),
                _ => (vec![3], String::new()),
            })
        };
        assert_eq!(all(pages).try_collect::<Vec<i32>>().await.unwrap(), [1, 2, 3]);
    }
}
