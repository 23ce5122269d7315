internal import Runtime
public import Wire

extension Sizing {
    /// The plan as a table for people.
    public var report: String {
        var lines = [
            "\(Self.short(load.messages)) messages/s to \(Self.short(load.members)) members: "
                + "\(Self.short(load.messages * load.members)) recipients/s, \(Self.short(load.deliveries)) frames/s "
                + "to \(Self.short(load.sessions)) devices",
            "",
            "stage          cores   processes      memory",
        ]
        for stage in stages {
            lines.append(
                stage.name.padded(to: 10) + Self.right(Self.short(stage.cores), 10)
                    + Self.right(Self.short(stage.processes), 12) + Self.right(Self.bytes(stage.memoryBytes), 12)
                    + "   " + stage.note)
        }
        lines.append("all       " + Self.right(Self.short(cores), 10) + "   at \(Int(load.busy * 100)) % busy")
        lines += ["", "topic             records/s     bytes/s"]
        for topic in topics {
            lines.append(
                topic.name.padded(to: 16)
                    + Self.right(Self.short(topic.recordsPerSecond), 11)
                    + Self.right(Self.bytes(topic.bytesPerSecond), 12))
        }
        let log = logBytes
        lines += [
            "",
            "partitions      \(Self.short(partitions.chat)) by chat, \(Self.short(partitions.user)) by user",
            "log             \(Self.bytes(log.produced))/s produced, \(Self.bytes(log.written))/s written with "
                + "\(Self.short(load.replication)) replicas, \(Self.bytes(log.read))/s read, "
                + "\(Self.bytes(log.written * 86_400)) a day",
        ]
        return lines.joined(separator: "\n") + "\n"
    }

    public func writeJSON(to json: inout JSONWriter) {
        json.object {
            $0.field("messages_per_second", load.messages)
            $0.field("deliveries_per_second", load.deliveries)
            $0.field("cores", cores)
            $0.name("stages")
            $0.array { json in
                for stage in stages {
                    json.object {
                        $0.field("stage", stage.name)
                        $0.field("cores", stage.cores)
                        $0.field("processes", stage.processes)
                        $0.field("memory_bytes", stage.memoryBytes)
                    }
                }
            }
            $0.name("topics")
            $0.array { json in
                for topic in topics {
                    json.object {
                        $0.field("topic", topic.name)
                        $0.field("records_per_second", topic.recordsPerSecond)
                        $0.field("bytes_per_second", topic.bytesPerSecond)
                    }
                }
            }
            $0.field("chat_partitions", partitions.chat)
            $0.field("user_partitions", partitions.user)
            $0.field("log_written_bytes_per_second", logBytes.written)
        }
    }

    private static func right(_ text: String, _ width: Int) -> String { text.padded(to: width, alignedRight: true) }

    /// 11.0 M, 4100, 0.34.
    static func short(_ value: Double) -> String {
        switch value {
        case 1e9...: "\(RunReport.rounded(value / 1e9, 1)) G"
        case 1e6...: "\(RunReport.rounded(value / 1e6, 1)) M"
        case 10_000...: "\(RunReport.rounded(value / 1e3, 0)) k"
        case 10...: RunReport.rounded(value, 0)
        default: value == value.rounded() ? RunReport.rounded(value, 0) : RunReport.rounded(value, 2)
        }
    }

    static func bytes(_ value: Double) -> String {
        switch value {
        case 1e15...: "\(RunReport.rounded(value / 1e15, 1)) PB"
        case 1e12...: "\(RunReport.rounded(value / 1e12, 1)) TB"
        case 1e9...: "\(RunReport.rounded(value / 1e9, 1)) GB"
        case 1e6...: "\(RunReport.rounded(value / 1e6, 0)) MB"
        default: "\(RunReport.rounded(value / 1e3, 0)) kB"
        }
    }
}
