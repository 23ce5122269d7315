internal import System
internal import Wire

/// What speaks the protocol through a `Cluster`.
protocol ClusterClient: AnyObject {
    /// The topics whose leaders it needs to know.
    var topicNames: [String] { get }
    func learned(_ topic: MetadataAnswer.Topic)
    func answered(_ answer: BrokerLink.Answer, by link: BrokerLink)
    /// A question was lost with its connection, and with it the answer.
    func lost(_ question: BrokerLink.Question)
    /// Something that could not be sent may be now.
    func wake()
}

/// The brokers as one client knows them: connections to those that it needs, and where to ask who leads what. All of
/// it lives on the client's thread, in a loop of the client's.
final class Cluster {
    let loop: EventLoop
    let clientID: String
    let log: KafkaLogSink?
    unowned var client: (any ClusterClient)?
    private var seeds: [BrokerLink] = []
    private var nextSeed = 0
    private var links: [Int32: BrokerLink] = [:]
    var wantsMetadata = false
    private(set) var asksMetadata = false
    private var metadataAskedNs: UInt64 = 0

    private var identities: [String: LogIdentity] = [:]
    private var hasToldOfNoIdentities = false
    /// How old what is known may become without a reason to ask.
    var metadataAgeMaxNs: UInt64 = 300_000_000_000

    private static let metadataPauseNs: UInt64 = 50_000_000

    /// Whether it can reach the brokers; else librdkafka must: what it does not know is encryption, SASL, and every other
    /// property.
    static func serves(_ configuration: KafkaConfiguration) -> Bool {
        guard addresses(configuration.bootstrapServers) != nil else { return false }
        return configuration.properties.allSatisfy { property in
            switch property.name {
            case "client.id": true
            case "security.protocol": property.value.lowercased() == "plaintext"
            default: false
            }
        }
    }

    /// Where to begin; nil where only librdkafka can.
    static func addresses(of configuration: KafkaConfiguration) -> [(host: String, port: Int)]? {
        serves(configuration) ? addresses(configuration.bootstrapServers) : nil
    }

    /// `host:port,…`; nil if it is anything else that librdkafka may understand.
    private static func addresses(_ list: String) -> [(host: String, port: Int)]? {
        var found: [(host: String, port: Int)] = []
        for entry in list.split(separator: ",") {
            let entry = entry.filter { $0 != " " }
            guard let colon = entry.lastIndex(of: ":"), let port = Int(entry[entry.index(after: colon)...]),
                (1...65535).contains(port), !entry.contains("/"), colon != entry.startIndex
            else { return nil }
            found.append((String(entry[..<colon]), port))
        }
        return found.isEmpty ? nil : found
    }

    init(_ configuration: KafkaConfiguration, on loop: EventLoop, log: KafkaLogSink?) {
        self.loop = loop
        self.log = log
        clientID = configuration.properties.first { $0.name == "client.id" }?.value ?? configuration.clientID
        for address in Self.addresses(configuration.bootstrapServers) ?? [] {
            seeds.append(BrokerLink(host: address.host, port: address.port, self))
        }
        seeds.shuffle()
    }

    // MARK: Connections

    /// The connection to the broker of a partition, being made if need be; nil while nobody knows where it is.
    func link(to leader: Int32?) -> BrokerLink? {
        guard let leader, let link = links[leader] else {
            wantsMetadata = true
            return nil
        }
        if !link.isReady { link.connect() }
        return link
    }

    /// Any link that can carry a question, connecting one if there is none.
    func anyLink() -> BrokerLink? {
        let all = Array(links.values) + seeds
        if let ready = all.first(where: { $0.isReady && !$0.isParked }) { return ready }
        guard !all.contains(where: \.isConnecting) else { return nil }
        // One after the other, so that one dead broker does not keep the rest from being asked.
        for offset in all.indices {
            let link = all[(nextSeed + offset) % all.count]
            guard !link.isReady, loop.monotonicNs >= link.retryAtNs else { continue }
            nextSeed = (nextSeed + offset + 1) % all.count
            link.connect()
            return nil
        }
        return all.first(where: \.isReady)
    }

    /// Closes every connection: nothing that was asked before may be answered after this.
    func reset() {
        for link in Array(links.values) + seeds { link.reset() }
    }

    /// Closes connections that wait for the answer to a question that is void.
    func reset(where isVoid: (BrokerLink.Question) -> Bool) {
        for link in links.values where link.waits(for: isVoid) { link.reset() }
    }

    func checkTimeouts() {
        for link in Array(links.values) + seeds { link.checkTimeout() }
        if metadataAskedNs != 0, loop.monotonicNs &- metadataAskedNs > metadataAgeMaxNs { wantsMetadata = true }
    }

    func linkLost(_ link: BrokerLink, _ lost: [BrokerLink.Question], reason: String) {
        if !reason.isEmpty {
            log?(
                KafkaLogLine(
                    level: lost.isEmpty ? .notice : .warning, facility: "BROKER", message: "\(link.name): \(reason)"))
        }
        for question in lost {
            if case .metadata = question { (asksMetadata, wantsMetadata) = (false, true) }
            client?.lost(question)
        }
        // Its partitions may have moved, or will while it cannot be reached; unless it was closed on purpose.
        if !reason.isEmpty { wantsMetadata = true }
        client?.wake()
    }

    // MARK: Leaders

    func askMetadata() {
        guard !asksMetadata, let names = client?.topicNames, !names.isEmpty else { return }
        guard metadataAskedNs == 0 || loop.monotonicNs &- metadataAskedNs >= Self.metadataPauseNs else { return }
        guard let link = anyLink() else { return }
        metadataAskedNs = loop.monotonicNs
        wantsMetadata = false
        let sorted = Set(names).sorted()
        asksMetadata = link.send(.metadata, .metadata) { frame, version in
            frame.count(sorted.count)
            for name in sorted {
                if version >= 10 { frame.uuid(UUID(high: 0, low: 0)) }
                frame.string(name)
                frame.noTags()
            }
            // Topics are made by those who know how many partitions they should have.
            if version >= 4 { frame.int8(0) }
            if (8...10).contains(version) { frame.int8(0) }
            if version >= 8 { frame.int8(0) }
            frame.noTags()
        }
    }

    func learned(_ metadata: MetadataAnswer) {
        asksMetadata = false
        for broker in metadata.brokers {
            if let known = links[broker.id] {
                if known.host == broker.host, known.port == Int(broker.port) { continue }
                known.reset()
            }
            links[broker.id] = BrokerLink(host: broker.host, port: Int(broker.port), self)
        }
        // Where to begin is needed again only when nobody else answers.
        for seed in seeds where !seed.hasPending { seed.reset() }
        for topic in metadata.topics {
            if topic.error == 0 { learned(topic.log, of: topic.name) }
            client?.learned(topic)
        }
    }

    private func learned(_ identity: LogIdentity?, of topic: String) {
        identities[topic] = identity
        guard identity == nil, !hasToldOfNoIdentities else { return }
        hasToldOfNoIdentities = true
        log?(
            KafkaLogLine(
                level: .warning, facility: "BROKER",
                message: "the brokers tell no topic ids, as Apache Kafka does from 2.8 on: a topic that is deleted and "
                    + "made again is noticed by its leaders' epochs and its end only"))
    }

    /// Which log stands under a name, as far as the brokers have told.
    func identity(of topic: String) -> LogIdentity? { identities[topic] }
}
