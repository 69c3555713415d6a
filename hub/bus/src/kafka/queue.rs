//! Partitions of one topic, brought into one queue of librdkafka's, beside other topics' queues on the same client. A client for each topic
//! would have threads, connections and buffers for each.
//!
//! librdkafka asks for no more of a topic while its queue is full, and goes on with the others. rdkafka has no safe calls for this.
#![allow(unsafe_code)]

use std::{
    collections::BTreeSet,
    ffi::{CStr, CString, c_int, c_void},
    future::poll_fn,
    ptr::{self, NonNull},
    slice,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use acb_hub_core::log::bus::{Logged, Offset, Partition, Record, TopicName};
use bytes::Bytes;
use futures::task::AtomicWaker;
use rdkafka::{
    bindings::{self as native, rd_kafka_resp_err_t, rd_kafka_timestamp_type_t},
    client::Client,
    error::{KafkaError, RDKafkaErrorCode},
};

use super::client::{self, Context};

/// Records that are taken from a queue under one lock of it.
const AT_ONCE: usize = 16;

/// Who keeps a client alive.
pub(super) trait Owner {
    /// The client; the same as long as this lives.
    fn client(&self) -> Option<&Client<Context>>;
}

/// A record, or what is wrong with a partition.
pub(super) type Taken = Result<Logged, Failed>;

/// What is wrong with a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed {
    pub(super) partition: Partition,
    pub(super) code: RDKafkaErrorCode,
}

/// No partition may be in two queues of the same client.
pub(super) struct Queue<O: Owner> {
    topic: NonNull<native::rd_kafka_topic_t>,
    queue: NonNull<native::rd_kafka_queue_t>,
    waker: Arc<AtomicWaker>,
    started: BTreeSet<Partition>,
    /// Dropped last: topic and queue are parts of the client.
    _owner: O,
}

// SAFETY: librdkafka's topics and queues may be used from any thread.
unsafe impl<O: Owner + Send> Send for Queue<O> {}
// SAFETY: as above.
unsafe impl<O: Owner + Sync> Sync for Queue<O> {}

impl<O: Owner> Queue<O> {
    pub(super) fn new(owner: O, topic: &TopicName) -> Result<Self, KafkaError> {
        let client = owner.client().ok_or(KafkaError::Canceled)?.native_ptr();
        let name = CString::new(topic.as_str())?;
        // SAFETY: the client outlives this call, and the name is copied. Without settings of its own the topic has the client's.
        let topic = unsafe { native::rd_kafka_topic_new(client, name.as_ptr(), ptr::null_mut()) };
        let topic = NonNull::new(topic).ok_or_else(last_error)?;
        // SAFETY: the client outlives this call.
        let Some(queue) = NonNull::new(unsafe { native::rd_kafka_queue_new(client) }) else {
            // SAFETY: made above, and used nowhere.
            unsafe { native::rd_kafka_topic_destroy(topic.as_ptr()) };
            return Err(last_error());
        };
        let waker = Arc::new(AtomicWaker::new());
        // SAFETY: the waker outlives the queue's use of it, which ends when this is dropped.
        unsafe { native::rd_kafka_queue_cb_event_enable(queue.as_ptr(), Some(wake), Arc::as_ptr(&waker).cast_mut().cast()) };
        Ok(Self { topic, queue, waker, started: BTreeSet::new(), _owner: owner })
    }

    /// Follows a partition from this offset on; one that is followed is followed from there instead.
    pub(super) fn start(&mut self, partition: Partition, offset: Offset) -> Result<(), KafkaError> {
        self.stop(partition);
        let offset = i64::try_from(offset).unwrap_or(i64::MAX);
        let (topic, queue) = (self.topic.as_ptr(), self.queue.as_ptr());
        // SAFETY: both are alive.
        if unsafe { native::rd_kafka_consume_start_queue(topic, partition.cast_signed(), offset, queue) } != 0 {
            return Err(last_error());
        }
        self.started.insert(partition);
        Ok(())
    }

    /// Nothing of the partition comes any more, also nothing that was fetched before.
    fn stop(&mut self, partition: Partition) {
        if self.started.remove(&partition) {
            // It fails only for what is not followed.
            // SAFETY: the topic is alive.
            let _ = unsafe { native::rd_kafka_consume_stop(self.topic.as_ptr(), partition.cast_signed()) };
        }
    }

    /// Some of what has come; waits for it, and takes at least one.
    pub(super) async fn next(&mut self) -> Vec<Taken> {
        poll_fn(|context| {
            let taken = self.take();
            if !taken.is_empty() {
                return Poll::Ready(taken);
            }
            self.waker.register(context.waker());
            // What came before the waker was there woke nobody.
            let taken = self.take();
            if taken.is_empty() { Poll::Pending } else { Poll::Ready(taken) }
        })
        .await
    }

    /// Some of what has come.
    pub(super) fn take(&mut self) -> Vec<Taken> {
        self.batch(AT_ONCE, Duration::ZERO)
    }

    /// Some of what has come, on a thread that may wait for it so long.
    pub(super) fn wait(&mut self, patience: Duration) -> Vec<Taken> {
        // librdkafka waits until it has as many as it is asked for.
        let mut taken = self.batch(1, patience);
        if !taken.is_empty() {
            taken.extend(self.take());
        }
        taken
    }

    fn batch(&mut self, most: usize, patience: Duration) -> Vec<Taken> {
        let mut found = [ptr::null_mut(); AT_ONCE];
        let most = most.min(found.len());
        let patience = c_int::try_from(patience.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the queue is alive, and there is room for as many as are asked for.
        let count = unsafe { native::rd_kafka_consume_batch_queue(self.queue.as_ptr(), patience, found.as_mut_ptr(), most) };
        let count = usize::try_from(count).unwrap_or(0).min(most);
        let copied = |message: &*mut native::rd_kafka_message_t| {
            // SAFETY: the message is ours until it is destroyed, which is done once, after it was copied.
            let taken = unsafe { copy(&**message) };
            // SAFETY: as above.
            unsafe { native::rd_kafka_message_destroy(*message) };
            taken
        };
        found.iter().take(count).map(copied).collect()
    }
}

impl<O: Owner> Drop for Queue<O> {
    fn drop(&mut self) {
        for partition in std::mem::take(&mut self.started) {
            // SAFETY: the topic is alive.
            let _ = unsafe { native::rd_kafka_consume_stop(self.topic.as_ptr(), partition.cast_signed()) };
        }
        // SAFETY: all are alive until here, and are used by nobody after this. The first call waits for a callback that runs.
        unsafe {
            native::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, ptr::null_mut());
            native::rd_kafka_queue_destroy(self.queue.as_ptr());
            native::rd_kafka_topic_destroy(self.topic.as_ptr());
        }
    }
}

/// There is something in a queue that was empty.
unsafe extern "C" fn wake(_: *mut native::rd_kafka_t, waker: *mut c_void) {
    // SAFETY: it is the queue's waker, which outlives its use here.
    unsafe { &*waker.cast::<AtomicWaker>() }.wake();
}

fn last_error() -> KafkaError {
    // SAFETY: it reads a value of this thread's.
    KafkaError::MessageConsumption(unsafe { native::rd_kafka_last_error() }.into())
}

/// What was read, apart from librdkafka's memory.
///
/// # Safety
/// The message is one of librdkafka's that was not destroyed.
unsafe fn copy(message: &native::rd_kafka_message_t) -> Taken {
    let partition = message.partition.cast_unsigned();
    if message.err != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Err(Failed { partition, code: message.err.into() });
    }
    let mut kind = rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    // SAFETY: the caller's promise.
    let millis = unsafe { native::rd_kafka_message_timestamp(message, &raw mut kind) };
    // SAFETY: key and payload have these lengths, or are null.
    let (key, value) = unsafe { (bytes(message.key, message.key_len), bytes(message.payload, message.len)) };
    // SAFETY: the caller's promise.
    let headers = unsafe { headers(message) };
    let record = Record { key, headers, value };
    Ok(Logged { partition, offset: message.offset.cast_unsigned(), log_time: client::log_time(millis.max(0)), record })
}

/// # Safety
/// As for [`copy`].
unsafe fn headers(message: &native::rd_kafka_message_t) -> Vec<(String, Bytes)> {
    let mut found = ptr::null_mut();
    // SAFETY: the caller's promise. What is found belongs to the message.
    if unsafe { native::rd_kafka_message_headers(message, &raw mut found) } != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Vec::new();
    }
    let header = |index| {
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the headers live as long as the message.
        let error = unsafe { native::rd_kafka_header_get_all(found, index, &raw mut name, &raw mut value, &raw mut size) };
        if error != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        // SAFETY: a name ends with a zero, and a value has this size, or is null.
        let (name, value) = unsafe { (CStr::from_ptr(name).to_string_lossy().into_owned(), bytes(value, size)) };
        Some((name, value.unwrap_or_default()))
    };
    (0..).map_while(header).collect()
}

/// # Safety
/// There are so many bytes, or the pointer is null.
unsafe fn bytes(start: *const c_void, length: usize) -> Option<Bytes> {
    // SAFETY: the caller's promise.
    (!start.is_null()).then(|| Bytes::copy_from_slice(unsafe { slice::from_raw_parts(start.cast::<u8>(), length) }))
}
