import Runtime
import System
import Wire

/// How fast Wire reads and writes JSON: a message as it stands in `chat.incoming`, over and over.
public enum JSONBenchmark {
    public struct Report: Sendable {
        public let bytes: Int
        /// Megabytes a second, each the median of several rounds.
        public let skip: Double
        public let decode: Double
        public let write: Double

        public var text: String {
            """
            JSON, a message of \(bytes) bytes
              pass over and check    \(Int(skip)) MB/s
              decode                 \(Int(decode)) MB/s
              write                  \(Int(write)) MB/s

            """
        }
    }

    public static func run(durationMs: Int) throws -> Report {
        let message = sample
        let decoded = try IncomingMessage(decoding: message.span)
        var json = JSONWriter()
        let share = durationMs / 3
        return Report(
            bytes: message.count,
            skip: try rate(of: message.count, durationMs: share) {
                var reader = JSONReader(message.span)
                try reader.skipValue()
                try reader.finish()
            },
            decode: try rate(of: message.count, durationMs: share) {
                guard try IncomingMessage(decoding: message.span) == decoded else { throw JSONError(.badValue, at: 0) }
            },
            write: try rate(of: message.count, durationMs: share) {
                json.removeAll()
                decoded.write(to: &json, source: message.span)
                guard json.bytes.count == message.count else { throw JSONError(.badValue, at: 0) }
            })
    }

    private static var sample: [UInt8] {
        var message = IncomingMessage(
            id: .random(), chat: .random(), from: .random(), device: .random(), kind: .text, metaVersion: 12)
        let text = JSONWriter.quoted(String(repeating: "Two hundred bytes of text, é included. ", count: 5))
        message.clientTs = 1_700_000_000_000
        var json = JSONWriter()
        message.write(to: &json, source: text.span)
        // The text goes in before the closing brace of a message that has none.
        json.bytes.removeLast()
        json.bytes += Array(#","text":"#.utf8) + text + Array("}".utf8)
        var ordered = JSONWriter()
        if let whole = try? IncomingMessage(decoding: json.bytes.span) {
            whole.write(to: &ordered, source: json.bytes.span)
        }
        return ordered.bytes
    }

    private static func rate(of bytes: Int, durationMs: Int, _ body: () throws -> Void) throws -> Double {
        let clock = SystemClock()
        var rates: [Double] = []
        for _ in 0..<5 {
            let start = clock.monotonicNs
            var count = 0
            while clock.monotonicNs - start < UInt64(durationMs) * 200_000 {
                for _ in 0..<1000 { try body() }
                count += 1000
            }
            rates.append(Double(count * bytes) * 1000 / Double(clock.monotonicNs - start))
        }
        return rates.sorted()[2]
    }
}

extension JSONWriter {
    fileprivate static func quoted(_ text: String) -> [UInt8] {
        var json = JSONWriter()
        json.value(text)
        return json.bytes
    }
}
