internal import Wire

/// What brokers answer to the requests of a producer.
struct ProduceAnswer: Equatable {
    var topic: String
    var partition: Int32
    var error: Int16
    /// -1 when unknown.
    var baseOffset: Int64
    /// -1 unless the broker stamps the records of this topic.
    var appendTimeMs: Int64

    static func read(
        _ reader: inout AnswerReader, version: Int16
    ) throws(AnswerReader.Malformed) -> [ProduceAnswer] {
        var answers: [ProduceAnswer] = []
        for _ in 0..<(try reader.count()) {
            let topic = try reader.string()
            for _ in 0..<(try reader.count()) {
                answers.append(
                    ProduceAnswer(
                        topic: topic, partition: try reader.int32(), error: try reader.int16(),
                        baseOffset: try reader.int64(), appendTimeMs: try reader.int64()))
                if version >= 5 { _ = try reader.int64() }
            }
        }
        _ = try reader.int32()
        return answers
    }
}

struct MetadataAnswer: Equatable {
    struct Broker: Equatable {
        var id: Int32
        var host: String
        var port: Int32
    }

    struct Partition: Equatable {
        var error: Int16
        var index: Int32
        /// -1 while there is none.
        var leader: Int32
        /// Grows with each leader; -1 when the broker does not tell.
        var leaderEpoch: Int32 = -1
    }

    struct Topic: Equatable {
        var error: Int16
        var name: String
        /// nil when the broker knows of no topic ids.
        var log: LogIdentity?
        var partitions: [Partition]
    }

    var brokers: [Broker] = []
    var topics: [Topic] = []

    init(_ reader: inout AnswerReader, version: Int16) throws(AnswerReader.Malformed) {
        if version >= 3 { _ = try reader.int32() }
        for _ in 0..<(try reader.count()) {
            brokers.append(Broker(id: try reader.int32(), host: try reader.string(), port: try reader.int32()))
            _ = try reader.nullableString()
            try reader.skipTags()
        }
        if version >= 2 { _ = try reader.nullableString() }
        _ = try reader.int32()
        for _ in 0..<(try reader.count()) {
            // Only who asks by id is told of no name.
            var topic = Topic(error: try reader.int16(), name: try reader.nullableString() ?? "", partitions: [])
            if version >= 10 { topic.log = LogIdentity(topicID: try reader.uuid()) }
            _ = try reader.int8()
            for _ in 0..<(try reader.count()) {
                var partition = Partition(
                    error: try reader.int16(), index: try reader.int32(), leader: try reader.int32())
                if version >= 7 { partition.leaderEpoch = try reader.int32() }
                topic.partitions.append(partition)
                // Replicas, those in sync, those offline.
                for _ in 0..<(version >= 5 ? 3 : 2) { try reader.skipInt32s() }
                try reader.skipTags()
            }
            if version >= 8 { _ = try reader.int32() }
            try reader.skipTags()
            topics.append(topic)
        }
        if (8...10).contains(version) { _ = try reader.int32() }
        try reader.skipTags()
    }
}

/// Who a producer is to the brokers: what they tell its repeats by.
struct ProducerIdentity: Equatable {
    var id: Int64
    var epoch: Int16
}

struct IdentityAnswer: Equatable {
    var error: Int16
    var identity: ProducerIdentity

    init(_ reader: inout AnswerReader) throws(AnswerReader.Malformed) {
        _ = try reader.int32()
        error = try reader.int16()
        identity = ProducerIdentity(id: try reader.int64(), epoch: try reader.int16())
    }
}

/// The versions that a broker speaks, as far as they matter here.
struct SpokenVersions: Equatable {
    private var ranges: [KafkaAPI: ClosedRange<Int16>] = [:]

    init(_ reader: inout AnswerReader) throws(AnswerReader.Malformed) {
        guard try reader.int16() == 0 else { throw AnswerReader.Malformed() }
        for _ in 0..<(try reader.count()) {
            let (key, least, most) = (try reader.int16(), try reader.int16(), try reader.int16())
            if let api = KafkaAPI(rawValue: key), least <= most { ranges[api] = least...most }
        }
    }

    /// The newest version that both speak.
    func version(of api: KafkaAPI) -> Int16? {
        guard let range = ranges[api] else { return nil }
        let version = min(api.versionMax, range.upperBound)
        return version >= max(api.versionMin, range.lowerBound) ? version : nil
    }
}
