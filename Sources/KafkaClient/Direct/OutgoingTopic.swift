/// A topic as a producer knows it.
struct OutgoingTopic {
    let name: String
    var isPatient: Bool
    /// nil until the brokers have told.
    var partitionCount: Int32?
    /// What they last said instead.
    var error: Int16 = 0
    var unknownSinceNs: UInt64?
    var partitions: [OutgoingPartition] = []
    /// Records that wait for the count of partitions.
    var unplaced: [UnplacedRecord] = []

    init(name: String, isPatient: Bool) {
        self.name = name
        self.isPatient = isPatient
    }

    mutating func becomePatient() {
        isPatient = true
        for index in partitions.indices { partitions[index].isPatient = true }
    }
}

/// A record whose partition is not known yet, or not known to be there.
struct UnplacedRecord {
    var partition: Int32?
    var key: [UInt8]?
    var value: [UInt8]?
    var headers: RecordHeaders
    var timestampMs: Int64
    var tag: UInt64
    var atNs: UInt64

    var byteCount: Int { (key?.count ?? 0) + (value?.count ?? 0) + headers.bytes.count }
}
