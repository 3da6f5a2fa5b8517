//! A sandbox of network namespaces with real FTP servers and clients in it.
