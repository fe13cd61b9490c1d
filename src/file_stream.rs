//! A file as a stream of chunks, for bodies of requests and answers.

use std::io;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

/// Bytes read at once.
const CHUNK: usize = 64 << 10;

/// The rest of `file`, chunk by chunk.
pub(crate) fn chunks(file: File) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::try_unfold(file, |mut file| async move {
        let mut chunk = vec![0; CHUNK];
        let read = file.read(&mut chunk).await?;
        chunk.truncate(read);
        Ok((read > 0).then(|| (Bytes::from(chunk), file)))
    })
}
