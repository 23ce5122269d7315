internal import Runtime

/// What there is to see of the broker from outside. Updated by its threads, read by whoever scrapes.
struct BrokerMetrics {
    let requests: [Int16: Counter]
    let producedBytes: Counter
    let fetchedBytes: Counter
    let committedBatches: Counter
    let committedBytes: Counter
    let commitSeconds: Histogram
    let connections: Gauge
    let refusedConnections: Counter
    let heldBytes: Gauge
    let unansweredRequests: Gauge
    let waitingBytes: Gauge
    let partitions: Gauge
    let logBytes: Gauge
    let storageFailures: Counter

    init(_ metrics: Metrics) {
        requests = Dictionary(
            uniqueKeysWithValues: API.requests.map { type in
                let api = type.api
                return (api.key, metrics.counter("fanout_broker_requests_total", "Requests by kind", ["api": api.name]))
            })
        producedBytes = metrics.counter("fanout_broker_produced_bytes_total", "Bytes of batches appended")
        fetchedBytes = metrics.counter("fanout_broker_fetched_bytes_total", "Bytes of batches sent to consumers")
        committedBatches = metrics.counter("fanout_broker_committed_batches_total", "Journal entries made durable")
        committedBytes = metrics.counter("fanout_broker_committed_bytes_total", "Bytes written to the journal")
        commitSeconds = metrics.histogram(
            "fanout_broker_commit_seconds", "Time to write and synchronize one group of the journal")
        connections = metrics.gauge("fanout_broker_connections", "Open connections")
        refusedConnections = metrics.counter(
            "fanout_broker_refused_connections_total", "Connections closed because there were too many")
        heldBytes = metrics.gauge("fanout_broker_held_bytes", "Bytes of unfinished requests and unread answers")
        unansweredRequests = metrics.gauge(
            "fanout_broker_unanswered_requests", "Requests taken up and not answered, fetches that wait among them")
        waitingBytes = metrics.gauge(
            "fanout_broker_journal_waiting_bytes", "Bytes that wait for the journal to bring others to disk")
        partitions = metrics.gauge("fanout_broker_partitions", "Partitions of all topics")
        logBytes = metrics.gauge("fanout_broker_log_bytes", "Bytes of all logs")
        storageFailures = metrics.counter(
            "fanout_broker_storage_failures_total", "Reads and writes of the data directory that failed")
    }
}
