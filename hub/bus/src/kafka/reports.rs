//! The delivery reports of a producer, taken by a task as they come. rdkafka's own thread for them would be one thread more that each message
//! waits for, and rdkafka has no safe calls to be told that there is a report.
#![allow(unsafe_code)]

use std::{
    ffi::c_void,
    ptr::{self, NonNull},
    sync::{Arc, Weak},
    time::Duration,
};

use rdkafka::{
    bindings as native,
    error::KafkaError,
    producer::{BaseProducer, Producer, ProducerContext},
};
use tokio::{runtime::Handle, sync::Notify};

use super::client::Closing;

/// The queue into which a producer's reports come.
struct Queue {
    queue: NonNull<native::rd_kafka_queue_t>,
    happened: Arc<Notify>,
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl Queue {
    fn of<C: ProducerContext>(producer: &BaseProducer<C>) -> Option<Self> {
        // SAFETY: the producer outlives this call.
        let queue = NonNull::new(unsafe { native::rd_kafka_queue_get_main(producer.client().native_ptr()) })?;
        let happened = Arc::new(Notify::new());
        let told = Arc::as_ptr(&happened).cast_mut().cast();
        // SAFETY: what is told outlives the queue's use of it, which ends when this is dropped.
        unsafe { native::rd_kafka_queue_cb_event_enable(queue.as_ptr(), Some(tell), told) };
        Some(Self { queue, happened })
    }

    fn is_empty(&self) -> bool {
        // SAFETY: the queue is alive.
        unsafe { native::rd_kafka_queue_length(self.queue.as_ptr()) == 0 }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the queue is alive until here, and used by nobody after this. The first call waits for a callback that runs.
        unsafe {
            native::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, ptr::null_mut());
            native::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
        // Whoever serves it ends.
        self.happened.notify_one();
    }
}

/// There is something in a queue that was empty.
unsafe extern "C" fn tell(_: *mut native::rd_kafka_t, happened: *mut c_void) {
    // SAFETY: it is the queue's, which outlives its use here.
    unsafe { &*happened.cast::<Notify>() }.notify_one();
}

/// A producer whose reports are taken until it is dropped.
pub(super) struct Live<C: ProducerContext + 'static> {
    /// Dropped first: it is a part of the producer.
    queue: Queue,
    producer: Closing<BaseProducer<C>>,
}

impl<C: ProducerContext + 'static> Live<C> {
    /// To be called on a runtime.
    pub(super) fn start(producer: BaseProducer<C>) -> Result<Arc<Self>, KafkaError> {
        let failed = |why: &str| KafkaError::ClientCreation(why.to_owned());
        let runtime = Handle::try_current().map_err(|_| failed("there is no runtime for its reports"))?;
        let queue = Queue::of(&producer).ok_or_else(|| failed("it has no queue"))?;
        let happened = Arc::clone(&queue.happened);
        let live = Arc::new(Self { queue, producer: Closing::new(producer) });
        runtime.spawn(serve(Arc::downgrade(&live), happened));
        Ok(live)
    }

    pub(super) fn get(&self) -> Option<&BaseProducer<C>> {
        self.producer.get()
    }

    /// Takes one report, of any number of records. False where there is none.
    fn take(&self) -> bool {
        match self.get() {
            Some(producer) if !self.queue.is_empty() => {
                producer.poll(Duration::ZERO);
                true
            }
            _ => false,
        }
    }
}

async fn serve<C: ProducerContext + 'static>(live: Weak<Live<C>>, happened: Arc<Notify>) {
    loop {
        let Some(taken) = live.upgrade().map(|live| live.take()) else { return };
        if taken {
            tokio::task::consume_budget().await;
        } else {
            happened.notified().await;
        }
    }
}
