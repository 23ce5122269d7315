import Runtime

/// What the stage counts.
struct PushMetrics {
    let records: Counter
    let rejected: Counter
    let told: Counter
    let dead: Counter
    let cancelled: Counter
    let muted: Counter
    let attempts: Counter
    let retries: Counter
    let waiting: Gauge
    let latency: Histogram

    init(_ metrics: Metrics) {
        records = metrics.counter("fanout_push_records_total", "Records read from chat.push.")
        rejected = metrics.counter("fanout_push_rejected_total", "Records that could not be read.")
        let help = "Notices settled, by outcome."
        told = metrics.counter("fanout_push_notices_total", help, ["outcome": "told"])
        dead = metrics.counter("fanout_push_notices_total", help, ["outcome": "dead"])
        cancelled = metrics.counter("fanout_push_notices_total", help, ["outcome": "cancelled"])
        muted = metrics.counter("fanout_push_notices_total", help, ["outcome": "muted"])
        attempts = metrics.counter("fanout_push_attempts_total", "Requests made to the webhook.")
        retries = metrics.counter("fanout_push_retries_total", "Requests that will be made again.")
        waiting = metrics.gauge("fanout_push_waiting", "People waiting for a notice or having one under way.")
        latency = metrics.histogram("fanout_push_request_seconds", "How long the webhook takes to answer.")
    }
}
