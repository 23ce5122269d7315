import HTTPClient
import Runtime
import System
import Wire

/// POSTs notices to the webhook, with retries and a circuit breaker. On the loop's thread only.
final class WebhookSender {
    enum Settled: Sendable {
        case told
        case dead(reason: String)
    }

    private struct Attempt {
        let notices: [Notice]
        var number = 1
    }

    private let loop: EventLoop
    private let configuration: PushConfiguration
    private let url: String
    private let clock: any Clock
    private let client: HTTPClient
    private var breaker = CircuitBreaker()
    private var queue: [Attempt] = []
    private var waitingForRetry = 0
    private var json = JSONWriter()
    private var probeTimer: Timer?
    private let metrics: PushMetrics
    /// Called once for each notice, when nothing more will be tried for it.
    var onSettled: ((Notice, Settled) -> Void)?

    init(
        _ configuration: PushConfiguration, url: String, on loop: EventLoop, clock: any Clock, metrics: PushMetrics
    ) throws(HTTPError) {
        self.loop = loop
        self.configuration = configuration
        self.url = url
        self.clock = clock
        self.metrics = metrics
        var options = HTTPClient.Options()
        options.connectionsMax = configuration.concurrency
        options.timeoutMs = configuration.timeoutMs
        options.certificateAuthorities = configuration.certificateAuthorities
        client = try HTTPClient(loop: loop, options: options)
    }

    /// How many notices could be sent now without waiting in line.
    var room: Int {
        breaker.isOpen
            ? 0 : max(0, (2 * configuration.concurrency - client.inFlight - queue.count) * configuration.batchMax)
    }

    func send(_ notices: [Notice]) {
        var start = 0
        while start < notices.count {
            let end = min(start + configuration.batchMax, notices.count)
            queue.append(Attempt(notices: Array(notices[start..<end])))
            start = end
        }
        pump()
    }

    func close() {
        probeTimer?.cancel()
        onSettled = nil
        client.close()
    }

    private func pump() {
        while !queue.isEmpty, client.inFlight < configuration.concurrency {
            guard breaker.mayCall(nowMs: clock.wallMs) else {
                // Open: look again soon, whether or not anything else happens.
                if probeTimer == nil {
                    probeTimer = loop.schedule(afterMs: 200) { [unowned self] in
                        probeTimer = nil
                        pump()
                    }
                }
                return
            }
            start(queue.removeFirst())
        }
    }

    private func start(_ attempt: Attempt) {
        json.removeAll()
        let nowMs = clock.wallMs
        if configuration.batchMax > 1 { json.beginArray() }
        for notice in attempt.notices {
            NoticeBody.write(notice, showsPreview: configuration.showsPreview, nowMs: nowMs, to: &json)
        }
        if configuration.batchMax > 1 { json.endArray() }
        var headers = [(name: "Content-Type", value: "application/json")]
        headers.append((name: "Idempotency-Key", value: attempt.notices[0].idempotencyKey))
        if let secret = configuration.secret {
            headers.append(
                (name: "X-Fanout-Signature", value: Signature.header(secret: secret, body: json.bytes, nowMs: nowMs)))
        }
        let startedNs = clock.monotonicNs
        metrics.attempts.add()
        client.send(HTTPRequest("POST", url, headers: headers, body: json.bytes)) { [unowned self] result in
            metrics.latency.record(ns: clock.monotonicNs - startedNs)
            finished(attempt, result)
            pump()
        }
    }

    private func finished(_ attempt: Attempt, _ result: Result<HTTPResponse, HTTPError>) {
        let outcome: RetryPolicy.Outcome
        switch result {
        case .success(let response):
            outcome = .status(response.status, retryAfterMs: response.retryAfterSeconds.map { Int64($0) * 1000 })
            if response.status >= 500 { breaker.failed(nowMs: clock.wallMs) } else { breaker.answered() }
        case .failure(let error):
            outcome = .noAnswer("\(error)")
            breaker.failed(nowMs: clock.wallMs)
        }
        switch configuration.retry.verdict(attempt: attempt.number, outcome, chance: .random(in: 0...1)) {
        case .told: settle(attempt, .told)
        case .dead(let reason): settle(attempt, .dead(reason: reason))
        case .retry(let afterMs):
            metrics.retries.add()
            var next = attempt
            next.number += 1
            waitingForRetry += 1
            loop.schedule(afterMs: Int(afterMs)) { [unowned self] in
                waitingForRetry -= 1
                queue.append(next)
                pump()
            }
        }
    }

    private func settle(_ attempt: Attempt, _ settled: Settled) {
        for notice in attempt.notices { onSettled?(notice, settled) }
    }
}

/// The signature that lets a webhook know who calls: an HMAC over the time and the body, so that neither can be changed
/// and an old request cannot be played again.
public enum Signature {
    public static func header(secret: String, body: [UInt8], nowMs: Int64) -> String {
        let seconds = nowMs / 1000
        let mac = Crypto.hmacSHA256(key: Array(secret.utf8), Array("\(seconds).".utf8) + body)
        let digits = Array("0123456789abcdef".utf8)
        var hex: [UInt8] = []
        for byte in mac { hex += [digits[Int(byte >> 4)], digits[Int(byte & 15)]] }
        return "t=\(seconds),v1=\(String(decoding: hex, as: UTF8.self))"
    }
}
