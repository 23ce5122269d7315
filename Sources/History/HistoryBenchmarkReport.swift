public import Wire

/// What `fanout bench history` found.
public struct HistoryBenchmarkReport: Sendable {
    public struct Read: Sendable {
        public let name: String
        public let p50Ms: Double
        public let p99Ms: Double
        public let targetMs: Double?

        /// Which part of the reads is within the target.
        var verdict: String {
            guard let targetMs else { return "" }
            return p99Ms <= targetMs ? "met by 99 %" : p50Ms <= targetMs ? "met by half" : "missed"
        }
    }

    public static let storedPerSecondTarget = 50_000.0

    public let messages: Int
    public let chats: Int
    public internal(set) var fillSeconds = 0.0
    public internal(set) var databaseBytes = 0
    public internal(set) var reads: [Read] = []
    public internal(set) var messagesPerSync = 0.0
    public internal(set) var storedPerSecond = 0.0
    /// What a message takes of the sink's CPU time, librdkafka's threads included and Postgres not.
    public internal(set) var sinkCPUMicroseconds = 0.0

    init(messages: Int, chats: Int) {
        self.messages = messages
        self.chats = chats
    }

    public var text: String {
        func ms(_ value: Double) -> String { "\((value * 100).rounded() / 100) ms" }
        func row(_ columns: String...) -> String {
            var line = ""
            for (column, width) in zip(columns, [27, 12, 12, 12, 0]) {
                line += column + String(repeating: " ", count: max(0, width - column.count))
            }
            return line + "\n"
        }
        var text =
            "\(messages) messages in \(chats) chats: \(databaseBytes >> 20) MiB, filled in \(Int(fillSeconds)) s\n"
        text += row("", "p50", "p99", "target", "")
        for read in reads {
            text += row(read.name, ms(read.p50Ms), ms(read.p99Ms), read.targetMs.map(ms) ?? "", read.verdict)
        }
        text += "messages in a sync         \(Int(messagesPerSync))\n"
        let verdict = storedPerSecond >= Self.storedPerSecondTarget ? "met" : "missed"
        text +=
            "stored by the sink         \(Int(storedPerSecond))/s, target \(Int(Self.storedPerSecondTarget))/s, \(verdict)\n"
        let cpu = (sinkCPUMicroseconds * 10).rounded() / 10
        text += "CPU time of the sink       \(cpu) µs a message, Postgres not counted\n"
        return text
    }

    public func write(to json: inout JSONWriter) {
        json.object {
            $0.field("messages", messages)
            $0.field("chats", chats)
            $0.field("database_bytes", databaseBytes)
            $0.field("fill_seconds", fillSeconds)
            $0.name("reads")
            $0.array { json in
                for read in reads {
                    json.object {
                        $0.field("name", read.name)
                        $0.field("p50_ms", read.p50Ms)
                        $0.field("p99_ms", read.p99Ms)
                        if let targetMs = read.targetMs { $0.field("target_ms", targetMs) }
                    }
                }
            }
            $0.field("messages_per_sync", messagesPerSync)
            $0.field("stored_per_second", storedPerSecond)
            $0.field("sink_cpu_us", sinkCPUMicroseconds)
            $0.field("stored_per_second_target", Self.storedPerSecondTarget)
        }
    }
}
