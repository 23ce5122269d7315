/// What a client may do with a resource, as a bit for each of Kafka's operations. There is no authorization: everything
/// that makes sense for the resource.
enum AuthorizedOperations {
    private enum Operation: Int32 {
        case read = 3, write, create, delete, alter, describe, clusterAction, describeConfigs, alterConfigs,
            idempotentWrite
    }

    /// What is said when nobody asked.
    static let notRequested = Int32.min
    static let topic = bits(.read, .write, .create, .delete, .alter, .describe, .describeConfigs, .alterConfigs)
    static let group = bits(.read, .delete, .describe)
    static let cluster = bits(
        .create, .alter, .describe, .clusterAction, .describeConfigs, .alterConfigs, .idempotentWrite)

    private static func bits(_ operations: Operation...) -> Int32 {
        operations.reduce(0) { $0 | 1 << $1.rawValue }
    }
}
