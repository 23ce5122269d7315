internal import KafkaClient

/// Who must be stopped before a rebuild can have the log's partitions.
enum PartitionHolders {
    /// The members of the group that have partitions; empty while they are being shared out.
    static func names(of group: String, _ kafka: KafkaConfiguration) throws(KafkaError) -> [String] {
        let admin = try Admin(kafka)
        defer { _ = admin.close(deadlineMs: 1000) }
        let members = try admin.describeGroups([group], timeoutMs: 2000).first?.1.get().members ?? []
        return members.filter { !$0.partitions.isEmpty }.map { "\($0.groupInstanceID ?? $0.id) at \($0.host)" }
    }
}
