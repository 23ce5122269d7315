import KafkaClient
import Runtime

/// What the stage counts.
struct PushMetrics {
    let records: Counter
    let rejected: Counter
    let told: Counter
    let dead: Counter
    let cancelled: Counter
    let muted: Counter
    let unreachable: Counter
    let attempts: Counter
    let retries: Counter
    let gone: Counter
    let waiting: Gauge
    let unsettled: Gauge
    let bytes: Gauge
    let paused: Gauge
    let latency: Histogram

    let faults: ReadFaults

    init(_ metrics: Metrics, _ log: Log) {
        faults = ReadFaults(log, metrics, stage: "push")
        records = metrics.counter("fanout_push_records_total", "Records read from chat.push.")
        rejected = metrics.counter("fanout_push_rejected_total", "Records that could not be read.")
        let help = "Notices settled, by outcome."
        told = metrics.counter("fanout_push_notices_total", help, ["outcome": "told"])
        dead = metrics.counter("fanout_push_notices_total", help, ["outcome": "dead"])
        cancelled = metrics.counter("fanout_push_notices_total", help, ["outcome": "cancelled"])
        muted = metrics.counter("fanout_push_notices_total", help, ["outcome": "muted"])
        unreachable = metrics.counter("fanout_push_notices_total", help, ["outcome": "unreachable"])
        attempts = metrics.counter("fanout_push_attempts_total", "Requests made to the webhook and to push services.")
        retries = metrics.counter("fanout_push_retries_total", "Requests that will be made again.")
        gone = metrics.counter("fanout_push_gone_total", "Subscriptions and tokens removed because they are gone.")
        waiting = metrics.gauge("fanout_push_waiting", "People waiting for a notice or having one under way.")
        unsettled = metrics.gauge("fanout_push_unsettled", "Records that are read and not settled.")
        bytes = metrics.gauge("fanout_push_bytes", "Texts and dead letters in memory.")
        paused = metrics.gauge("fanout_push_paused", "1 while memory is full and the log holds the backlog.")
        latency = metrics.histogram("fanout_push_request_seconds", "How long a receiver takes to answer.")
    }
}
