internal import CRdKafka

/// How to reach the log: where it is, and any librdkafka property an operator wants to pass (`--kafka-property k=v`).
///
/// Properties given here win over Fanout's defaults, except the few that its guarantees rest on (see `fixed`): naming
/// one of those with another value is refused before anything starts.
public struct KafkaConfiguration: Sendable, CustomStringConvertible {
    public var bootstrapServers: String
    /// Shows in the broker's logs and quotas.
    public var clientID: String
    public private(set) var properties: [Property] = []

    public struct Property: Sendable, Equatable {
        public let name: String
        public let value: String
    }

    public init(bootstrapServers: String, clientID: String = "fanout") {
        self.bootstrapServers = bootstrapServers
        self.clientID = clientID
    }

    /// Adds one `name=value`, as given to `--kafka-property`. The name is checked at once, so that a typing error is
    /// one line at start and not a warning in a log.
    public mutating func set(property text: String) throws(KafkaError) {
        guard let separator = text.firstIndex(of: "="), separator != text.startIndex else {
            throw KafkaError(.configuration, "expected name=value, got \"\(text)\"", place: "kafka property")
        }
        try set(String(text[..<separator]), to: String(text[text.index(after: separator)...]))
    }

    public mutating func set(_ name: String, to value: String) throws(KafkaError) {
        if let required = Self.fixed[name], required != value {
            throw KafkaError(
                .configuration, "\(name) is fixed at \(required): delivery guarantees rest on it",
                place: "kafka property")
        }
        if name == "partition.assignment.strategy", value.contains("cooperative") {
            throw KafkaError(
                .configuration, "cooperative-sticky is not supported (librdkafka 2.0.2); use range or roundrobin",
                place: "kafka property")
        }
        if Self.reserved.contains(name) {
            throw KafkaError(.configuration, "\(name) is set by Fanout itself", place: "kafka property")
        }
        var scratch = PropertySet()
        try scratch.set(name, to: value)
        properties.removeAll { $0.name == name }
        properties.append(Property(name: name, value: value))
    }

    public var description: String {
        var text = "bootstrap.servers=\(bootstrapServers) client.id=\(clientID)"
        for property in properties {
            text += " \(property.name)=\(Self.isSecret(property.name) ? "***" : property.value)"
        }
        return text
    }

    /// True for values that are never printed, whether in logs, errors or `--help` output.
    public static func isSecret(_ name: String) -> Bool {
        let last = name.split(separator: ".").last ?? ""
        return ["password", "pem", "key", "secret", "token", "jaas"].contains(String(last))
            || name.hasPrefix("sasl.oauthbearer.client.secret") || name == "sasl.oauthbearer.config"
            || name == "sasl.username"
    }

    /// Idempotent, fully acknowledged writes placed by the Java client's hash, and positions moved by us alone.
    static let fixed = [
        "enable.idempotence": "true",
        "acks": "all", "request.required.acks": "all",
        "partitioner": "murmur2_random",
        "enable.auto.commit": "false", "auto.commit.enable": "false",
        "enable.auto.offset.store": "false",
    ]
    static let reserved: Set<String> = [
        "bootstrap.servers", "metadata.broker.list", "group.id", "group.instance.id", "log.queue",
        "enable.partition.eof", "transactional.id",
    ]
}

/// Owner of an `rd_kafka_conf_t` until a client takes it over.
@safe
struct PropertySet: ~Copyable {
    private var raw: OpaquePointer?

    init() { unsafe raw = rd_kafka_conf_new() }

    deinit { if let raw = unsafe raw { unsafe rd_kafka_conf_destroy(raw) } }

    mutating func set(_ name: String, to value: String) throws(KafkaError) {
        var reason = [CChar](repeating: 0, count: 512)
        let outcome = unsafe rd_kafka_conf_set(raw, name, value, &reason, reason.count)
        guard outcome != RD_KAFKA_CONF_OK else { return }
        // librdkafka's reason may quote the value.
        let message =
            outcome == RD_KAFKA_CONF_UNKNOWN
            ? "no such property \"\(name)\""
            : KafkaConfiguration.isSecret(name) ? "bad value for \(name)" : "\(name): \(string(fromC: reason))"
        throw KafkaError(.configuration, message, place: "kafka property")
    }

    /// For what only newer versions of librdkafka have, and older ones do without.
    mutating func setIfKnown(_ name: String, to value: String) {
        _ = unsafe rd_kafka_conf_set(raw, name, value, nil, 0)
    }

    mutating func set(_ defaults: KeyValuePairs<String, String>) throws(KafkaError) {
        for (name, value) in defaults { try set(name, to: value) }
    }

    /// Defaults first, then the operator's properties, then what is fixed.
    mutating func apply(_ configuration: KafkaConfiguration) throws(KafkaError) {
        for property in configuration.properties { try set(property.name, to: property.value) }
        try set("bootstrap.servers", to: configuration.bootstrapServers)
        if !configuration.properties.contains(where: { $0.name == "client.id" }) {
            try set("client.id", to: configuration.clientID)
        }
    }

    mutating func withRaw(_ body: (OpaquePointer) -> Void) {
        if let raw = unsafe raw { unsafe body(raw) }
    }

    /// Gives the handle away: on success the new client owns it.
    mutating func take() -> OpaquePointer? {
        let taken = unsafe raw
        unsafe raw = nil
        return unsafe taken
    }

    /// Takes the handle back after a client could not be made.
    mutating func giveBack(_ handle: OpaquePointer?) { unsafe raw = handle }
}

/// The text of a C string in a Swift buffer.
func string(fromC buffer: [CChar]) -> String {
    String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}
