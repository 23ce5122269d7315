import Synchronization
import System
import Wire

/// A webhook that answers everything at once and with one status: no more of HTTP than the stage's own requests need.
final class Sink: Sendable {
    let port: Int
    private let thread: LoopThread
    private let counts: Counts

    fileprivate final class Counts: Sendable {
        let requests = Atomic<Int>(0)
        let firstNs = Atomic<UInt64>(0)
        let lastNs = Atomic<UInt64>(0)
    }

    init(status: Int = 200) throws {
        let port = Handover<Int>()
        let counts = Counts()
        self.counts = counts
        thread = try LoopThread.start(name: "bench-sink") { (loop) throws(SystemError) in
            let side = Side(counts, status, loop)
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

    /// What the thread has used of the CPU since it began.
    var cpuNs: UInt64 {
        let answer = Handover<UInt64>()
        thread.remote.execute { _ in answer.put(CurrentProcess.threadCPUNs) }
        return answer.take()
    }

    func stop() {
        thread.stop()
        thread.join()
    }

    private final class Side {
        private let counts: Counts
        private let answer: [UInt8]
        private let loop: EventLoop
        private var connections: [ObjectIdentifier: Connection] = [:]

        init(_ counts: Counts, _ status: Int, _ loop: EventLoop) {
            self.counts = counts
            answer = Array("HTTP/1.1 \(status) Answer\r\nContent-Length: 0\r\n\r\n".utf8)
            self.loop = loop
        }

        func accept(_ socket: consuming Socket) {
            let connection = Connection(counts, answer, loop) { [unowned self] in
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
        private let answer: [UInt8]
        private let loop: EventLoop
        private let onClosed: (Connection) -> Void
        /// The beginning of a request that is not all there.
        private var rest: [UInt8] = []

        private static let lengthName = Array("content-length:".utf8)

        init(_ counts: Counts, _ answer: [UInt8], _ loop: EventLoop, _ onClosed: @escaping (Connection) -> Void) {
            self.counts = counts
            self.answer = answer
            self.loop = loop
            self.onClosed = onClosed
        }

        func stream(_ stream: Stream, received input: Span<UInt8>) {
            guard !rest.isEmpty else {
                let end = answerAll(input)
                if end < input.count { rest = [UInt8](copying: input.extracting(end..<input.count)) }
                return
            }
            rest.append(input)
            let whole = rest
            rest.removeFirst(answerAll(whole.span))
        }

        func streamClosed(_ stream: Stream, reason: CloseReason) { onClosed(self) }

        /// Where the last whole request ends.
        private func answerAll(_ bytes: Span<UInt8>) -> Int {
            var start = 0
            while let end = Self.requestEnd(bytes, from: start) {
                start = end
                stream?.write(answer)
                let nowNs = loop.monotonicNs
                if counts.requests.wrappingAdd(1, ordering: .relaxed).newValue == 1 {
                    counts.firstNs.store(nowNs, ordering: .relaxed)
                }
                counts.lastNs.store(nowNs, ordering: .relaxed)
            }
            return start
        }

        /// Where the request that begins here ends, once all of it is there.
        private static func requestEnd(_ bytes: Span<UInt8>, from start: Int) -> Int? {
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
                if let length = length(bytes.extracting(line..<index)) { bodyBytes = length }
            }
            return nil
        }

        private static func length(_ line: Span<UInt8>) -> Int? {
            guard line.count > lengthName.count, line[0] | 0x20 == lengthName[0] else { return nil }
            for (offset, letter) in lengthName.enumerated() where line[offset] | 0x20 != letter | 0x20 { return nil }
            var value = 0
            for index in lengthName.count..<line.count where line[index] &- 0x30 < 10 {
                value = value * 10 + Int(line[index] - 0x30)
            }
            return value
        }
    }
}
