import HTTPClient
import Runtime
import System

/// Calls one receiver: bounded concurrency, retries with backoff, a circuit breaker. On the loop's thread only.
///
/// While the breaker is open only probes are made, and they do not count as tries: what was handed over waits for the
/// receiver to come back, or until its own deadline, and is not worn out in attempts.
final class Courier {
    struct Limits {
        /// Requests at once.
        var concurrency = 64
        /// Parcels that wait for their next try; above it none are taken, so that they cannot become the backlog.
        var retriesMax: Int { 16 * concurrency }
    }

    struct Parcel {
        /// Makes the request anew for each try, since signatures carry the time; `nil` if it cannot be made at all.
        let request: () -> HTTPRequest?
        /// Tried until then at the longest; `nil` for as long as it takes.
        var deadlineMs: Int64?
        /// Called once, when nothing more will be tried.
        let onSettled: (Fate) -> Void
        fileprivate var tries = 0

        init(deadlineMs: Int64? = nil, request: @escaping () -> HTTPRequest?, onSettled: @escaping (Fate) -> Void) {
            self.deadlineMs = deadlineMs
            self.request = request
            self.onSettled = onSettled
        }
    }

    /// What became of a parcel.
    enum Fate {
        case accepted(HTTPResponse)
        case refused(Refusal)
    }

    struct Refusal {
        /// The last answer's, if there was one.
        var status: Int?
        let reason: String
        let tries: Int
    }

    private let loop: EventLoop
    private let clock: any Clock
    private let client: HTTPClient
    private let limits: Limits
    private let retry: RetryPolicy
    private let metrics: PushMetrics
    private var breaker: CircuitBreaker
    private var queue: [Parcel] = []
    private var inFlight = 0
    private var waitingForRetry = 0
    private var probeTimer: Timer?
    private var isClosed = false

    init(
        _ client: HTTPClient, limits: Limits, retry: RetryPolicy, breaker: CircuitBreaker, on loop: EventLoop,
        clock: any Clock, metrics: PushMetrics
    ) {
        self.client = client
        self.limits = limits
        self.retry = retry
        self.breaker = breaker
        self.loop = loop
        self.clock = clock
        self.metrics = metrics
    }

    /// How many parcels could be taken now without making a backlog of them. While the breaker is open that is the one
    /// which the next probe needs: with none, nothing would ever find out that the receiver is back.
    var room: Int {
        if breaker.isOpen { return queue.isEmpty && inFlight == 0 ? 1 : 0 }
        return max(0, min(2 * limits.concurrency - inFlight - queue.count, limits.retriesMax - waitingForRetry))
    }

    var isIdle: Bool { pending == 0 && !breaker.isOpen }
    /// The receiver does not answer: nothing but probes is sent.
    var isHeldBack: Bool { breaker.isOpen }
    /// Parcels that are not settled.
    var pending: Int { inFlight + queue.count + waitingForRetry }

    func send(_ parcel: Parcel) {
        queue.append(parcel)
        pump()
    }

    /// Nothing is settled any more.
    func close() {
        isClosed = true
        queue = []
        probeTimer?.cancel()
    }

    private func pump() {
        while !queue.isEmpty, inFlight < limits.concurrency, !isClosed {
            let nowMs = clock.wallMs
            if let deadlineMs = queue[0].deadlineMs, nowMs >= deadlineMs {
                let parcel = queue.removeFirst()
                settle(parcel, status: nil, "not delivered in time")
                continue
            }
            guard let call = breaker.call(nowMs: nowMs) else { return lookAgain() }
            start(queue.removeFirst(), call)
        }
    }

    /// The breaker is open: look again soon, whether or not anything else happens.
    private func lookAgain() {
        guard probeTimer == nil else { return }
        probeTimer = loop.schedule(afterMs: 200) { [unowned self] in
            probeTimer = nil
            pump()
        }
    }

    private func start(_ parcel: Parcel, _ call: CircuitBreaker.Call) {
        guard let request = parcel.request() else {
            breaker.abandoned(call)
            return settle(parcel, status: nil, "the request cannot be made")
        }
        let startedNs = clock.monotonicNs
        metrics.attempts.add()
        inFlight += 1
        client.send(request) { [unowned self] result in
            inFlight -= 1
            guard !isClosed else { return }
            metrics.latency.record(ns: clock.monotonicNs - startedNs)
            finished(parcel, call, result)
            pump()
        }
    }

    private func finished(
        _ sent: Parcel, _ call: CircuitBreaker.Call, _ result: Result<HTTPResponse, HTTPError>
    ) {
        var parcel = sent
        let outcome: RetryPolicy.Outcome
        var status: Int?
        switch result {
        case .success(let response):
            if response.status >= 500 { breaker.failed(call, nowMs: clock.wallMs) } else { breaker.answered() }
            if (200..<300).contains(response.status) { return parcel.onSettled(.accepted(response)) }
            status = response.status
            outcome = .status(response.status, retryAfterMs: response.retryAfterSeconds.map { Int64($0) * 1000 })
        case .failure(let error) where error.code == .badRequest || error.code == .forbidden:
            breaker.abandoned(call)
            return settle(parcel, status: nil, "\(error)")
        case .failure(let error):
            outcome = .noAnswer("\(error)")
            breaker.failed(call, nowMs: clock.wallMs)
        }
        let isProbe = call == .probe && breaker.isOpen
        if !isProbe { parcel.tries += 1 }
        switch retry.verdict(
            attempt: max(1, parcel.tries), outcome, chance: .random(in: 0...1), isProbe: isProbe)
        {
        case .told: break
        case .dead(let reason): settle(parcel, status: status, reason)
        case .retry(let afterMs):
            metrics.retries.add()
            waitingForRetry += 1
            loop.schedule(afterMs: Int(afterMs)) { [unowned self] in
                waitingForRetry -= 1
                guard !isClosed else { return }
                queue.append(parcel)
                pump()
            }
        }
    }

    private func settle(_ parcel: Parcel, status: Int?, _ reason: String) {
        parcel.onSettled(.refused(Refusal(status: status, reason: reason, tries: parcel.tries)))
    }
}
