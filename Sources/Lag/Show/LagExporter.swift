public import Runtime
public import System

/// `fanout lag --prometheus`: looks each interval and serves what the last look found, together with how old that is.
///
/// A look that fails takes its figures away: a graph with a gap tells the truth, one that goes on at the last value does not.
/// On the loop's thread only; the looks are on others, so a scrape never waits for one.
public final class LagExporter {
    private let observer: LagObserver
    private let loop: EventLoop
    private let intervalMs: Int
    private let timeoutMs: Int
    private let log: Log
    private var server: MetricsServer?
    private var before: LagSample?
    private var text: [UInt8] = []
    private var succeededNs: UInt64?
    private var isUp = false
    private let cluster: Health.Condition

    public init(
        _ observer: LagObserver, on loop: EventLoop, address: Address, intervalMs: Int, timeoutMs: Int, log: Log
    ) throws(SystemError) {
        self.observer = observer
        self.loop = loop
        self.intervalMs = intervalMs
        self.timeoutMs = timeoutMs
        self.log = log
        let health = Health(clock: SystemClock())
        cluster = health.condition("log", failing: "the cluster has not answered yet")
        server = try MetricsServer(
            on: loop, address: address, render: { [unowned self] in render() }, health: health)
        look()
    }

    public var port: UInt16 { server?.port ?? 0 }

    public func close() {
        server?.close()
        server = nil
    }

    private func look() {
        let startedNs = loop.monotonicNs
        observer.look(at: [.cluster, .slots], withinMs: timeoutMs) { [unowned self] sample in
            let tookNs = loop.monotonicNs - startedNs
            take(sample, tookNs: tookNs)
            loop.schedule(afterMs: max(intervalMs - Int(tookNs / 1_000_000), 50)) { [unowned self] in look() }
        }
    }

    private func take(_ sample: LagSample, tookNs: UInt64) {
        text = LagStatus(before: before, now: sample, thresholds: observer.thresholds).metrics()
        var own = PrometheusText()
        own.add("fanout_lag_look_seconds", "How long the last look took.", [], Double(tookNs) / 1e9)
        text += own.bytes
        if let error = sample.clusterError {
            if isUp || succeededNs == nil { log.warning("the cluster does not answer", ["error": "\(error)"]) }
            isUp = false
            cluster.failed("the cluster does not answer")
            before = nil
        } else {
            if !isUp, succeededNs != nil { log.info("the cluster answers again") }
            isUp = true
            cluster.met()
            before = sample
            succeededNs = loop.monotonicNs
        }
    }

    private func render() -> [UInt8] {
        guard let succeededNs else { return text }
        var own = PrometheusText()
        own.add(
            "fanout_lag_age_seconds", "Since the cluster last answered a look.", [],
            Double(loop.monotonicNs - succeededNs) / 1e9)
        return text + own.bytes
    }
}
