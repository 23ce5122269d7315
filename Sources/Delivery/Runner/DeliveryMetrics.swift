import Runtime
import Wire

/// The worker's counts as metrics.
final class DeliveryMetrics {
    private var last = DeliveryCounts()
    private let counters: [(Counter, KeyPath<DeliveryCounts, Int>)]
    private let sessions: Gauge
    private let partitions: Gauge
    private let instances: Gauge
    private let windowBytes: Gauge
    private let pushesHeld: Gauge
    let unreached: Gauge
    let left: Counter
    let fromLog: Histogram
    let logChanged: Counter

    init(_ metrics: Metrics) {
        func counter(_ name: String, _ help: String, _ path: KeyPath<DeliveryCounts, Int>)
            -> (Counter, KeyPath<DeliveryCounts, Int>)
        {
            (metrics.counter("fanout_delivery_" + name, help), path)
        }
        counters = [
            counter("records_total", "records read from chat.deliveries", \.records),
            counter("deliveries_total", "events sent to sessions", \.deliveries),
            counter("batches_total", "frames with one event and its sessions sent to chat servers", \.batches),
            counter("duplicates_total", "records dropped because their source had been seen", \.duplicates),
            counter("rejected_total", "records that could not be read", \.rejected),
            counter("typing_dropped_total", "typing events dropped for full links", \.droppedTyping),
            counter("fills_served_total", "pages of missed events served from the hot window", \.fillsServed),
            counter("fills_refused_total", "fills that the hot window could not serve", \.fillsRefused),
            counter(
                "links_left_behind_total", "times a full link was left behind so that others went on", \.leftBehind),
            counter("links_stuck_total", "links given up because they stayed full", \.stuckLinks),
            counter("instances_dropped_total", "chat servers given up", \.droppedInstances),
            counter("presence_changes_total", "users who came online or went offline", \.presenceChanges),
            counter("pushes_total", "records written to chat.push", \.pushes),
        ]
        sessions = metrics.gauge("fanout_delivery_sessions", "sessions registered here")
        partitions = metrics.gauge("fanout_delivery_partitions", "partitions of chat.deliveries owned")
        instances = metrics.gauge("fanout_delivery_instances", "chat servers known")
        fromLog = metrics.histogram(
            "fanout_delivery_log_seconds", "from the join's record to the delivery worker, sampled once a batch")
        pushesHeld = metrics.gauge(
            "fanout_delivery_pushes_held",
            "pushes that wait until it is known whether their users have a session on a chat server that cannot be asked"
        )
        unreached = metrics.gauge(
            "fanout_delivery_unreached_instances", "chat servers that announce themselves and to which there is no link"
        )
        left = metrics.counter(
            "fanout_delivery_left_total", "times the group was left because other workers reach more chat servers")
        logChanged = metrics.counter(
            "fanout_log_changed_total",
            "Partitions that were begun anew because the topic was made again or had lost its end",
            ["topic": Topic.deliveries.rawValue])
        windowBytes = metrics.gauge("fanout_delivery_window_bytes", "bytes in the hot windows")
    }

    func publish(_ worker: DeliveryWorker) {
        let now = worker.counts
        for (counter, path) in counters { counter.add(now[keyPath: path] - last[keyPath: path]) }
        last = now
        sessions.set(worker.sessionCount)
        partitions.set(worker.owned.count)
        instances.set(worker.instanceCount)
        windowBytes.set(worker.windowByteCount)
        pushesHeld.set(worker.heldPushCount)
    }
}
