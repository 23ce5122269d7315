import Runtime
import System
import WebSocket

/// Asks other stages for their `/metrics`, so that one page shows the whole pipeline (docs/ops-api.md).
///
/// Asked only when an admin looks, all at once; who has not answered within the time is left out. On the loop thread only.
final class StageMetrics {
    typealias Source = (name: String, address: Address)

    private static let timeoutMs = 1000
    private static let bytesMax = 1 << 20
    private static let limits: HTTPLimits = {
        var limits = HTTPLimits()
        limits.bodyBytesMax = bytesMax
        return limits
    }()

    private var texts: [String: String] = [:]
    private var missing: Int
    private var done: (([String: String]) -> Void)?

    /// Calls `done` once, with the texts of those that answered.
    static func ask(_ sources: [Source], on loop: EventLoop, done: @escaping ([String: String]) -> Void) {
        guard !sources.isEmpty else { return done([:]) }
        let all = StageMetrics(missing: sources.count, done)
        for source in sources {
            let question = Question { text in
                all.texts[source.name] = text
                all.missing -= 1
                if all.missing == 0 { all.finish() }
            }
            let stream = Stream.connect(
                host: source.address.host, port: Int(source.address.port), on: loop, delegate: question,
                timeoutMs: timeoutMs)
            _ = stream.write(
                Array("GET /metrics HTTP/1.1\r\nHost: \(source.address)\r\nConnection: close\r\n\r\n".utf8))
            question.limit = loop.schedule(afterMs: timeoutMs) { stream.close() }
        }
    }

    private init(missing: Int, _ done: @escaping ([String: String]) -> Void) {
        self.missing = missing
        self.done = done
    }

    private func finish() {
        done?(texts)
        done = nil
    }

    /// One request.
    private final class Question: StreamDelegate {
        var limit: Timer?
        private var parser = HTTPReplyParser(limits: StageMetrics.limits)
        private var received = 0
        private var text: String?
        private let answered: (String?) -> Void

        init(_ answered: @escaping (String?) -> Void) { self.answered = answered }

        func stream(_ stream: Stream, received bytes: Span<UInt8>) {
            received += bytes.count
            var offset = 0
            let reply = try? parser.next(bytes, &offset)
            if let reply, reply.status == 200 { text = String(decoding: reply.body, as: UTF8.self) }
            if reply != nil || received > StageMetrics.bytesMax { stream.close() }
        }

        func streamClosed(_ stream: Stream, reason: CloseReason) {
            _ = limit?.cancel()
            answered(text)
        }
    }
}
