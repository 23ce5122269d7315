import Synchronization
import System
import Wire

/// A webhook that takes everything at once and says so: no more of HTTP than the stage's own requests need.
final class Sink: Sendable {
    let port: Int
    private let thread: LoopThread
    private let counts: Counts

    fileprivate final class Counts: Sendable {
        let requests = Atomic<Int>(0)
        let firstNs = Atomic<UInt64>(0)
        let lastNs = Atomic<UInt64>(0)
    }

    init() throws {
        let port = Handover<Int>()
        let counts = Counts()
        self.counts = counts
        thread = try LoopThread.start(name: "bench-sink") { (loop) throws(SystemError) in
            let side = Side(counts, loop)
            let listener = try Listener(on: loop, host: "127.0.0.1", port: 0) { side.accept($0) }
            port.put(listener.port)
            return (side, listener)
        }
        self.port = port.take()
    }

    var requests: Int { counts.requests.load(ordering: .relaxed) }
    /// From the first request to the last.
    var seconds: Double {
        Double(counts.lastNs.load(ordering: .relaxed) &- counts.firstNs.load(ordering: .relaxed)) / 1e9
    }

    func stop() {
        thread.stop()
        thread.join()
    }

    private final class Side {
        private let counts: Counts
        private let loop: EventLoop
        private var connections: [ObjectIdentifier: Connection] = [:]

        init(_ counts: Counts, _ loop: EventLoop) {
            self.counts = counts
            self.loop = loop
        }

        func accept(_ socket: consuming Socket) {
            let connection = Connection(counts, loop) { [unowned self] in
                connections[ObjectIdentifier($0)] = nil
            }
            guard let stream = try? Stream(socket, on: loop, delegate: connection) else { return }
            connection.stream = stream
            connections[ObjectIdentifier(connection)] = connection
        }
    }

    private final class Connection: StreamDelegate {
        var stream: Stream?
        private let counts: Counts
        private let loop: EventLoop
        private let onClosed: (Connection) -> Void
        private var bytes: [UInt8] = []

        private static let answer = Array("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".utf8)
        private static let lengthName = Array("content-length:".utf8)

        init(_ counts: Counts, _ loop: EventLoop, _ onClosed: @escaping (Connection) -> Void) {
            self.counts = counts
            self.loop = loop
            self.onClosed = onClosed
        }

        func stream(_ stream: Stream, received input: Span<UInt8>) {
            bytes.append(input)
            var start = 0
            while let end = requestEnd(from: start) {
                start = end
                stream.write(Self.answer)
                let nowNs = loop.monotonicNs
                if counts.requests.wrappingAdd(1, ordering: .relaxed).newValue == 1 {
                    counts.firstNs.store(nowNs, ordering: .relaxed)
                }
                counts.lastNs.store(nowNs, ordering: .relaxed)
            }
            bytes.removeFirst(start)
        }

        func streamClosed(_ stream: Stream, reason: CloseReason) { onClosed(self) }

        /// Where the request that begins here ends, once all of it is there.
        private func requestEnd(from start: Int) -> Int? {
            var index = start
            var bodyBytes = 0
            while index < bytes.count {
                let line = index
                while index < bytes.count, bytes[index] != 0x0a { index += 1 }
                guard index < bytes.count else { return nil }
                index += 1
                if index - line <= 2 {
                    return index + bodyBytes <= bytes.count ? index + bodyBytes : nil
                }
                if let length = length(line, index) { bodyBytes = length }
            }
            return nil
        }

        private func length(_ start: Int, _ end: Int) -> Int? {
            guard end - start > Self.lengthName.count else { return nil }
            for (offset, letter) in Self.lengthName.enumerated() where bytes[start + offset] | 0x20 != letter | 0x20 {
                return nil
            }
            var value = 0
            for byte in bytes[(start + Self.lengthName.count)..<end] where byte &- 0x30 < 10 {
                value = value * 10 + Int(byte - 0x30)
            }
            return value
        }
    }
}
